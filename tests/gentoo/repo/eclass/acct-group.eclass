# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: acct-group.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: makes a system group

if [[ -z ${_ACCT_GROUP_ECLASS} ]]; then
_ACCT_GROUP_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @ECLASS_VARIABLE: ACCT_GROUP_ID
# @REQUIRED
# @DESCRIPTION:
# The group's number, or -1 for any that is free.

: "${DESCRIPTION:="System group: ${PN}"}"
: "${SLOT:=0}"
: "${KEYWORDS:=amd64 arm64}"
S=${WORKDIR}

# @FUNCTION: acct-group_pkg_preinst
# @DESCRIPTION:
# Makes the group if it is not there.
acct-group_pkg_preinst() {
	[[ ${EUID} -ne 0 || -n ${EPREFIX} ]] && return
	[[ -n ${ROOT} ]] && return
	getent group "${PN}" > /dev/null || groupadd --system "${PN}" || die
}

fi

EXPORT_FUNCTIONS pkg_preinst
