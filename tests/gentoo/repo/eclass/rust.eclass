# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: rust.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: finds the installed Rust and names it in CARGO and RUSTC
# @DESCRIPTION:
# Has the interface of the main repository's eclass, for one slot of Rust:
# whichever dev-lang/rust-bin is installed.

if [[ -z ${_RUST_ECLASS} ]]; then
_RUST_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @ECLASS_VARIABLE: RUST_MIN_VER
# @DEFAULT_UNSET
# @PRE_INHERIT
# @DESCRIPTION:
# The lowest version of Rust that the package builds with.

# @ECLASS_VARIABLE: RUST_OPTIONAL
# @DEFAULT_UNSET
# @PRE_INHERIT
# @DESCRIPTION:
# Set to keep RUST_DEPEND out of BDEPEND.

# @ECLASS_VARIABLE: RUST_DEPEND
# @OUTPUT_VARIABLE
# @DESCRIPTION:
# Dependency on a Rust that is new enough.
RUST_DEPEND="
	|| (
		>=dev-lang/rust-bin-${RUST_MIN_VER:-1.95.0}:*
		>=dev-lang/rust-${RUST_MIN_VER:-1.95.0}:*
	)
"
[[ -n ${RUST_OPTIONAL} ]] || BDEPEND=${RUST_DEPEND}

# @FUNCTION: rust_abi
# @USAGE: [CHOST]
# @DESCRIPTION:
# Prints Rust's name for a machine.
rust_abi() {
	case ${1:-${CHOST}} in
		aarch64*gnu) echo aarch64-unknown-linux-gnu ;;
		x86_64*gnu) echo x86_64-unknown-linux-gnu ;;
		*) die "the stand-in of rust.eclass knows no ${1:-${CHOST}}" ;;
	esac
}

# @FUNCTION: get_rust_prefix
# @USAGE: [-b|-d]
# @DESCRIPTION:
# Prints the directory that the newest suitable Rust is installed in.
get_rust_prefix() {
	local directory newest=
	has_version -b ">=dev-lang/rust-bin-${RUST_MIN_VER:-1.95.0}" ||
		die "no Rust of at least ${RUST_MIN_VER:-1.95.0} is installed"
	for directory in "${BROOT}"/opt/rust-bin-*/; do
		newest=${directory}
	done
	echo "${newest}"
}

# @FUNCTION: rust_pkg_setup
# @DESCRIPTION:
# Sets CARGO and RUSTC and puts their directory first in PATH.
rust_pkg_setup() {
	[[ ${MERGE_TYPE} == binary ]] && return
	local prefix
	prefix=$(get_rust_prefix) || die
	export CARGO=${prefix}bin/cargo RUSTC=${prefix}bin/rustc PATH=${prefix}bin:${PATH}
}

fi

EXPORT_FUNCTIONS pkg_setup
