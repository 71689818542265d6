# Sourced by the scripts of deploy/: privileges, Debian packages and the Rust toolchain.

# What building needs: aws-lc is compiled from C and assembly by the cc crate, without cmake.
BUILD_PACKAGES=(build-essential pkg-config ca-certificates)

# What makes it faster where the architecture has it: ciphers over many packets at once (x86-64).
FASTER_PACKAGES=(libipsec-mb-dev)

# need_root COMMAND...: ends the script unless it runs as root.
need_root() {
  [ "$(id -u)" = 0 ] && return 0
  echo "this makes network namespaces and devices and so needs root:" >&2
  echo "  sudo --preserve-env=PATH,CARGO_HOME,RUSTUP_HOME $*" >&2
  exit 3
}

# apt_need PACKAGE...: installs those that are not there yet.
apt_need() {
  local missing=() package log
  for package in "$@"; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
  done
  [ ${#missing[@]} -gt 0 ] || return 0
  echo "installing Debian packages: ${missing[*]}"
  log=$(mktemp)
  if ! { apt-get -qq update &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq -y --no-install-recommends install "${missing[@]}"; } > "$log" 2>&1; then
    tail -n 15 "$log" >&2
    rm -f "$log"
    return 1
  fi
  rm -f "$log"
}

# apt_want PACKAGE...: as apt_need for those that this Debian has for this architecture; never fails.
apt_want() {
  local package
  for package in "$@"; do
    if [ -n "$(apt-cache madison "$package" 2>/dev/null)" ]; then
      apt_need "$package" || echo "going on without $package" >&2
    fi
  done
}

# need_rust: finds cargo, also where rustup puts it, and ends the script when there is none.
need_rust() {
  command -v cargo > /dev/null || PATH=${CARGO_HOME:-$HOME/.cargo}/bin:$PATH
  command -v cargo > /dev/null && return 0
  echo "no cargo: install Rust 1.90 or newer from https://rustup.rs" >&2
  exit 3
}
