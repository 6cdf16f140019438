# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: systemd.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: installs systemd units

if [[ -z ${_SYSTEMD_ECLASS} ]]; then
_SYSTEMD_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @FUNCTION: systemd_newunit
# @USAGE: <file> <name>
# @DESCRIPTION:
# Installs one unit under another name.
systemd_newunit() {
	(
		insopts -m 0644
		insinto /usr/lib/systemd/system
		newins "$@"
	)
}

# @FUNCTION: systemd_dounit
# @USAGE: <unit>...
# @DESCRIPTION:
# Installs units.
systemd_dounit() {
	(
		insopts -m 0644
		insinto /usr/lib/systemd/system
		doins "$@"
	)
}

fi
