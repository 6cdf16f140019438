#!/bin/bash
# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2
# shellcheck disable=SC2016,SC2034 # read by eclasses; written into scripts

# What the package manager offers to an eclass, as far as the tests beside this
# file need it, and a way to write tests as sentences.  GENTOO_ECLASSES names the
# main repository's eclass directory; the stand-in's by default.

set -o pipefail

TESTS=$(dirname -- "$(realpath -- "${BASH_SOURCE[0]}")")
: "${GENTOO_ECLASSES:=${TESTS}/../../../tests/gentoo/repo/eclass}"
SCRATCH=$(mktemp -d)
trap 'rm -rf -- "${SCRATCH}"' EXIT

EAPI=8 CATEGORY=app-misc PN=greeter PV=1 P=greeter-1 PF=greeter-1 PVR=1
EBUILD_PHASE=compile MERGE_TYPE=source USE="" MAKEOPTS=-j2 RUSTFLAGS="" LDFLAGS="" NOCOLOR=true
ROOT="" EROOT="" EPREFIX="" BROOT=${SCRATCH}/broot CHOST=x86_64-pc-linux-gnu CBUILD=x86_64-pc-linux-gnu
WORKDIR=${SCRATCH}/sources S=${SCRATCH}/sources/greeter-1 T=${SCRATCH}/temp D=${SCRATCH}/image ED=${SCRATCH}/image
IUSE="" DEPEND="" RDEPEND="" BDEPEND=""
mkdir -p "${S}" "${T}" "${D}" "${BROOT}/usr/bin"

inherit() {
	local ECLASS directory
	for ECLASS in "$@"; do
		for directory in "${TESTS}/.." "${GENTOO_ECLASSES}"; do
			[[ -e ${directory}/${ECLASS}.eclass ]] || continue
			# shellcheck disable=SC1090
			source "${directory}/${ECLASS}.eclass"
			continue 2
		done
		die "no eclass ${ECLASS}"
	done
}

die() {
	echo "die: $*" >&2
	exit 1
}

EXPORT_FUNCTIONS() { :; }
debug-print-function() { :; }
has_version() { :; }
has() { [[ " ${*:2} " == *" $1 "* ]]; }

# ver_test [VERSION] OPERATOR VERSION, for versions of numbers and dots.
ver_test() {
	local left=${PV} operator right order
	(($# == 3)) && { left=$1; shift; }
	operator=$1 right=$2
	if [[ ${left} == "${right}" ]]; then
		order=same
	elif [[ $(printf '%s\n' "${left}" "${right}" | sort --version-sort | head -n 1) == "${left}" ]]; then
		order=less
	else
		order=greater
	fi
	case ${operator} in
		-eq) [[ ${order} == same ]] ;;
		-ne) [[ ${order} != same ]] ;;
		-lt) [[ ${order} == less ]] ;;
		-le) [[ ${order} != greater ]] ;;
		-gt) [[ ${order} == greater ]] ;;
		-ge) [[ ${order} != less ]] ;;
		*) die "${FUNCNAME[0]}: no operator ${operator}" ;;
	esac
}

# Portage's own instead, if VERSION_FUNCTIONS names the file that it has them in.
if [[ -n ${VERSION_FUNCTIONS} ]]; then
	___eapi_has_ver_replacing() { false; }
	# shellcheck disable=SC1090
	source "${VERSION_FUNCTIONS}" || exit 1
fi

get_libdir() { echo "${LIBDIR:-lib64}"; }
einstalldocs() { :; }
use() { [[ " ${USE} " == *" $1 "* ]]; }
usev() { use "$1" && echo "${2:-$1}"; }
usex() { if use "$1"; then echo "${2-yes}"; else echo "${3-no}"; fi; }
exeinto() { INTO=$1; }
insinto() { INTO=$1; }
doexe() { install -D -m 0755 -t "${ED}${INTO}" "$@"; }
dodoc() { install -D -m 0644 -t "${ED}/usr/share/doc/${PF}" "$@"; }
doins() { install -D -m 0644 -t "${ED}${INTO}" "$@"; }
einfo() { echo "einfo: $*"; }
elog() { echo "elog: $*"; }
ewarn() { echo "ewarn: $*"; }
eqawarn() { echo "eqawarn: $*"; }
eerror() { echo "eerror: $*"; }
ebegin() { echo "ebegin: $*"; }
eend() {
	(($1 == 0)) || echo "eend: ${*:2}"
	return "$1"
}

PASSED=0 FAILED=0

# it SENTENCE FUNCTION: runs a test in a subshell; what it prints is shown if it fails.
it() {
	if ("$2") > "${SCRATCH}/output" 2>&1; then
		PASSED=$((PASSED + 1))
		echo "ok: $1"
	else
		FAILED=$((FAILED + 1))
		echo "FAILED: $1"
		sed 's/^/    /' "${SCRATCH}/output"
	fi
}

finish() {
	echo "${PASSED} passed, ${FAILED} failed"
	((FAILED == 0)) || exit 1
}

# expect TEXT COMMAND...: the command succeeds and says this.
expect() {
	local wanted=$1 output
	shift
	output=$("$@" 2>&1) || { echo "failed: $*: ${output}"; return 1; }
	[[ ${output} == *"${wanted}"* ]] || { echo "wanted: ${wanted}"; echo "got: ${output}"; return 1; }
}
