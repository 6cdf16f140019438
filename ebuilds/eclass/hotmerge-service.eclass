# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: hotmerge-service.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: find the hotmerge host that this system's service manager runs
# @DESCRIPTION:
# Where the host that serves here is found, and which configuration it reads.  The
# user may have changed both, in /etc/conf.d/hotmerge under OpenRC or in the unit
# or a drop-in of it under systemd.  The host's package and the packages of plugins
# ask these functions, and none knows a path of its own.

if [[ -z ${_HOTMERGE_SERVICE_ECLASS} ]]; then
_HOTMERGE_SERVICE_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @ECLASS_VARIABLE: HOTMERGE_SERVICE_ELSEWHERE
# @OUTPUT_VARIABLE
# @DESCRIPTION:
# Why hotmerge-service_is_elsewhere succeeded, in words; empty if it did not.

# @FUNCTION: hotmerge-service_runtime_dir
# @DESCRIPTION:
# Prints the directory where the host that the service manager runs is found.
hotmerge-service_runtime_dir() {
	local directory
	directory=$(_hotmerge-service_setting hotmerge_runtime_dir --runtime-dir)
	echo "${directory:-${EPREFIX}/run/hotmerge}"
}

# @FUNCTION: hotmerge-service_config
# @DESCRIPTION:
# Prints the configuration file that the service manager starts the host with.
hotmerge-service_config() {
	local file
	file=$(_hotmerge-service_setting hotmerge_config --config)
	echo "${file:-${EPREFIX}/etc/hotmerge/hotmerge.toml}"
}

# @FUNCTION: hotmerge-service_manager
# @DESCRIPTION:
# Prints what runs services here.  A prefix has no manager of its own: its host
# answers for itself.
hotmerge-service_manager() {
	if [[ -n ${EPREFIX} ]]; then
		echo prefix
	elif [[ -d /run/systemd/system ]]; then
		echo systemd
	elif [[ -e /run/openrc/softlevel ]]; then
		echo openrc
	fi
}

# @FUNCTION: hotmerge-service_is_elsewhere
# @DESCRIPTION:
# Whether what is merged or removed belongs to another system than the running one,
# so that no host here uses it; the reason is in HOTMERGE_SERVICE_ELSEWHERE.
hotmerge-service_is_elsewhere() {
	HOTMERGE_SERVICE_ELSEWHERE=
	if [[ -n ${ROOT} ]]; then
		HOTMERGE_SERVICE_ELSEWHERE="this is a merge for ${ROOT}"
	elif [[ -z ${EPREFIX} ]] && _hotmerge-service_in_chroot; then
		HOTMERGE_SERVICE_ELSEWHERE="this is a chroot"
	fi
	[[ -n ${HOTMERGE_SERVICE_ELSEWHERE} ]]
}

# @FUNCTION: _hotmerge-service_setting
# @USAGE: <variable-of-conf.d> <option-of-the-unit>
# @INTERNAL
# @DESCRIPTION:
# Prints a setting of the service, or nothing if the user left it alone.
_hotmerge-service_setting() {
	case $(hotmerge-service_manager) in
		systemd)
			systemctl show --property=ExecStart hotmerge.service 2> /dev/null |
				sed -n "s/.*$2[ =]\\([^ ;]*\\).*/\\1/p"
			;;
		openrc)
			(
				unset -v "$1"
				[[ -r ${EROOT}/etc/conf.d/hotmerge ]] && source "${EROOT}/etc/conf.d/hotmerge" &> /dev/null
				echo "${!1}"
			)
			;;
	esac
}

# @FUNCTION: _hotmerge-service_in_chroot
# @INTERNAL
# @DESCRIPTION:
# Whether / is another one than that of the machine's first process.  /run may
# be the machine's all the same, and with it the way to its host.
_hotmerge-service_in_chroot() {
	[[ ! /proc/1/root -ef / ]]
}

fi
