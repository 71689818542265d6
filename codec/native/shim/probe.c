/* Preprocesses exactly where the library of the version the shim was written for can be built against. */
#include <intel-ipsec-mb.h>

#if !defined(__x86_64__) || !defined(__linux__)
#error "the multi-buffer library is used on x86-64 Linux"
#endif

#if IMB_VERSION_NUM < IMB_VERSION(1, 3, 0)
#error "hash and cipher bursts for every algorithm of ESP came with 1.3"
#endif
