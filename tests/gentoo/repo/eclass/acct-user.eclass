# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: acct-user.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: makes a system user

if [[ -z ${_ACCT_USER_ECLASS} ]]; then
_ACCT_USER_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @ECLASS_VARIABLE: ACCT_USER_ID
# @REQUIRED
# @DESCRIPTION:
# The user's number, or -1 for any that is free.

# @ECLASS_VARIABLE: ACCT_USER_GROUPS
# @REQUIRED
# @DESCRIPTION:
# Array of the user's groups, the primary one first.

# @ECLASS_VARIABLE: ACCT_USER_HOME
# @DESCRIPTION:
# The user's home directory.
: "${ACCT_USER_HOME:=/dev/null}"

# @ECLASS_VARIABLE: ACCT_USER_HOME_PERMS
# @DESCRIPTION:
# The mode of the home directory.
: "${ACCT_USER_HOME_PERMS:=0755}"

: "${DESCRIPTION:="System user: ${PN}"}"
: "${SLOT:=0}"
: "${KEYWORDS:=amd64 arm64}"
S=${WORKDIR}

# @FUNCTION: acct-user_add_deps
# @DESCRIPTION:
# Adds the groups to RDEPEND.
acct-user_add_deps() {
	RDEPEND+=${ACCT_USER_GROUPS[*]/#/ acct-group/}
}

# @FUNCTION: acct-user_src_install
# @DESCRIPTION:
# Keeps the home directory in the package.
acct-user_src_install() {
	[[ ${ACCT_USER_HOME} == /dev/null ]] || keepdir "${ACCT_USER_HOME}"
}

# @FUNCTION: acct-user_pkg_preinst
# @DESCRIPTION:
# Makes the user if it is not there, and gives it its home.
acct-user_pkg_preinst() {
	[[ ${EUID} -ne 0 || -n ${EPREFIX} ]] && return
	[[ -n ${ROOT} ]] && return
	if ! getent passwd "${PN}" > /dev/null; then
		useradd --system --no-create-home --no-user-group --gid "${ACCT_USER_GROUPS[0]}" \
			--home-dir "${ACCT_USER_HOME}" --shell /usr/sbin/nologin "${PN}" || die
	fi
	[[ ${ACCT_USER_HOME} == /dev/null ]] && return
	fowners "${PN}:${ACCT_USER_GROUPS[0]}" "${ACCT_USER_HOME}"
	fperms "${ACCT_USER_HOME_PERMS}" "${ACCT_USER_HOME}"
}

fi

EXPORT_FUNCTIONS src_install pkg_preinst
