# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: linux-info.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: a lab takes the kernel as it finds it

if [[ -z ${_LINUX_INFO_ECLASS} ]]; then
_LINUX_INFO_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @ECLASS_VARIABLE: CONFIG_CHECK
# @DEFAULT_UNSET
# @DESCRIPTION:
# Kernel options that the package wants; the stand-in checks none.

# @FUNCTION: linux-info_pkg_setup
# @DESCRIPTION:
# Does nothing.
linux-info_pkg_setup() {
	:
}

fi

EXPORT_FUNCTIONS pkg_setup
