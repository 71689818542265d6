/*
 * Functions over the macros of the multi-buffer library. They check nothing: lengths, alignment and counts are
 * the caller's, which is src/ipsec_mb.
 */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <intel-ipsec-mb.h>

/* What the Rust side lays out. */
struct hash_job {
	const uint8_t *inner; /* chaining value behind the inner pad */
	const uint8_t *outer;
	const uint8_t *text;
	size_t text_len;
	uint8_t *icv;
};

struct cipher_job {
	const uint8_t *schedule;
	const uint8_t *iv;
	uint8_t *text; /* in place */
	size_t text_len;
};

_Static_assert(sizeof(struct gcm_key_data) <= 1024, "the Rust side reserves 1024 octets, aligned to 64");
_Static_assert(IMB_MAX_BURST_SIZE >= 128, "the Rust side makes bursts of up to 128 jobs");

/* A manager of 256-bit or 512-bit vectors, or null when memory is short or the library's self test failed. */
IMB_MGR *mb_manager_new(int wide)
{
	IMB_MGR *manager = alloc_mb_mgr(0);

	if (manager == NULL)
		return NULL;
	if (wide)
		init_mb_mgr_avx512(manager);
	else
		init_mb_mgr_avx2(manager);
	const uint64_t tested = IMB_FEATURE_SELF_TEST | IMB_FEATURE_SELF_TEST_PASS;
	if (imb_get_errno(manager) != 0 || (manager->features & tested) == IMB_FEATURE_SELF_TEST) {
		free_mb_mgr(manager);
		return NULL;
	}
	return manager;
}

void mb_manager_free(IMB_MGR *manager)
{
	free_mb_mgr(manager);
}

void mb_gcm_expand(const IMB_MGR *manager, size_t key_len, const uint8_t *key, struct gcm_key_data *expanded)
{
	if (key_len == IMB_KEY_128_BYTES)
		IMB_AES128_GCM_PRE(manager, key, expanded);
	else
		IMB_AES256_GCM_PRE(manager, key, expanded);
}

/*
 * Encrypts or decrypts. The tag is in both cases the right one: that of a text to decrypt is the caller's to compare
 * with the one that came.
 */
void mb_gcm(const IMB_MGR *manager, int encrypt, size_t key_len, const struct gcm_key_data *key, const uint8_t *nonce,
	    const uint8_t *aad, size_t aad_len, uint8_t *text, size_t text_len, uint8_t *tag)
{
	struct gcm_context_data state;
	aes_gcm_enc_dec_t call;

	if (key_len == IMB_KEY_128_BYTES)
		call = encrypt ? manager->gcm128_enc : manager->gcm128_dec;
	else
		call = encrypt ? manager->gcm256_enc : manager->gcm256_dec;
	call(key, &state, text, text, text_len, nonce, aad, aad_len, tag, 16);
}

/* Both schedules of an AES key, 240 octets each. */
void mb_aes_expand(const IMB_MGR *manager, size_t key_len, const uint8_t *key, uint8_t *encrypt, uint8_t *decrypt)
{
	switch (key_len) {
	case IMB_KEY_128_BYTES:
		IMB_AES_KEYEXP_128(manager, key, encrypt, decrypt);
		break;
	case IMB_KEY_192_BYTES:
		IMB_AES_KEYEXP_192(manager, key, encrypt, decrypt);
		break;
	default:
		IMB_AES_KEYEXP_256(manager, key, encrypt, decrypt);
	}
}

static IMB_HASH_ALG hash_of(size_t icv_len)
{
	switch (icv_len) {
	case 12:
		return IMB_AUTH_HMAC_SHA_1;
	case 16:
		return IMB_AUTH_HMAC_SHA_256;
	case 24:
		return IMB_AUTH_HMAC_SHA_384;
	default:
		return IMB_AUTH_HMAC_SHA_512;
	}
}

/* Truncated HMACs; the ICV's length names the hash. Returns how many of the jobs were done. */
size_t mb_hash(IMB_MGR *manager, size_t icv_len, const struct hash_job *from, size_t count)
{
	IMB_JOB jobs[IMB_MAX_BURST_SIZE];

	memset(jobs, 0, count * sizeof(jobs[0]));
	for (size_t i = 0; i < count; i++) {
		jobs[i].src = from[i].text;
		jobs[i].msg_len_to_hash_in_bytes = from[i].text_len;
		jobs[i].auth_tag_output = from[i].icv;
		jobs[i].auth_tag_output_len_in_bytes = icv_len;
		jobs[i].u.HMAC._hashed_auth_key_xor_ipad = from[i].inner;
		jobs[i].u.HMAC._hashed_auth_key_xor_opad = from[i].outer;
	}
	return IMB_SUBMIT_HASH_BURST_NOCHECK(manager, jobs, count, hash_of(icv_len));
}

/* AES-CBC in place, all jobs with keys of one length. Returns how many of the jobs were done. */
size_t mb_cipher(IMB_MGR *manager, int encrypt, size_t key_len, const struct cipher_job *from, size_t count)
{
	IMB_JOB jobs[IMB_MAX_BURST_SIZE];

	memset(jobs, 0, count * sizeof(jobs[0]));
	for (size_t i = 0; i < count; i++) {
		jobs[i].src = from[i].text;
		jobs[i].dst = from[i].text;
		jobs[i].msg_len_to_cipher_in_bytes = from[i].text_len;
		jobs[i].iv = from[i].iv;
		jobs[i].iv_len_in_bytes = 16;
		jobs[i].enc_keys = from[i].schedule;
		jobs[i].dec_keys = from[i].schedule;
		jobs[i].key_len_in_bytes = key_len;
	}
	return IMB_SUBMIT_CIPHER_BURST_NOCHECK(manager, jobs, count, IMB_CIPHER_CBC,
					       encrypt ? IMB_DIR_ENCRYPT : IMB_DIR_DECRYPT, key_len);
}
