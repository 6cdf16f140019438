# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: toolchain-funcs.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: which compilers to use, and for which machine

if [[ -z ${_TOOLCHAIN_FUNCS_ECLASS} ]]; then
_TOOLCHAIN_FUNCS_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @FUNCTION: tc-is-cross-compiler
# @RETURN: success if CBUILD and CHOST differ
tc-is-cross-compiler() {
	[[ ${CBUILD:-${CHOST}} != "${CHOST}" ]]
}

# @FUNCTION: tc-getCC
# @RETURN: the C compiler for CHOST
tc-getCC() {
	echo "${CC:-gcc}"
}

# @FUNCTION: tc-getBUILD_CC
# @RETURN: the C compiler for CBUILD
tc-getBUILD_CC() {
	echo "${BUILD_CC:-gcc}"
}

# @FUNCTION: tc-getAR
# @RETURN: the archiver for CHOST
tc-getAR() {
	echo "${AR:-ar}"
}

# @FUNCTION: tc-env_build
# @USAGE: <command> [<argument>...]
# @DESCRIPTION:
# Runs a command with the tools and flags for CBUILD.
tc-env_build() {
	CFLAGS=${BUILD_CFLAGS} CXXFLAGS=${BUILD_CXXFLAGS} LDFLAGS=${BUILD_LDFLAGS} \
		CC=$(tc-getBUILD_CC) AR=ar "$@"
}

# @FUNCTION: tc-export
# @USAGE: <variable>...
# @DESCRIPTION:
# Exports the tools of the given names.
tc-export() {
	local name
	for name in "$@"; do
		case ${name} in
			AR) export AR=$(tc-getAR) ;;
			CC) export CC=$(tc-getCC) ;;
			*) die "the stand-in of toolchain-funcs knows no ${name}" ;;
		esac
	done
}

fi
