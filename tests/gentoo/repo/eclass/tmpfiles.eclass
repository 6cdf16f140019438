# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: tmpfiles.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: installs tmpfiles.d files and carries them out

if [[ -z ${_TMPFILES_ECLASS} ]]; then
_TMPFILES_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

RDEPEND="virtual/tmpfiles"

# @FUNCTION: newtmpfiles
# @USAGE: <file> <name>.conf
# @DESCRIPTION:
# Installs one tmpfiles.d file under another name.
newtmpfiles() {
	(
		insopts -m 0644
		insinto /usr/lib/tmpfiles.d
		newins "$@"
	)
}

# @FUNCTION: dotmpfiles
# @USAGE: <file>...
# @DESCRIPTION:
# Installs tmpfiles.d files.
dotmpfiles() {
	(
		insopts -m 0644
		insinto /usr/lib/tmpfiles.d
		doins "$@"
	)
}

# @FUNCTION: tmpfiles_process
# @USAGE: <name>...
# @DESCRIPTION:
# Makes what the files ask for, on the running system only.
tmpfiles_process() {
	[[ ${EBUILD_PHASE} == postinst ]] || die "${FUNCNAME} is for pkg_postinst only"
	if [[ -n ${ROOT} || -n ${EPREFIX} ]]; then
		ewarn "tmpfiles.d not carried out for another root: $*"
		return 0
	fi
	type -P systemd-tmpfiles > /dev/null || return 0
	systemd-tmpfiles --create "${@/#//usr/lib/tmpfiles.d/}" ||
		ewarn "systemd-tmpfiles failed for $*"
}

fi
