# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: hotmerge-plugin.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @PROVIDES: cargo
# @BLURB: build plugins of the hotmerge host, and let a running host follow
# @DESCRIPTION:
# Builds the plugin crates of a cargo workspace with cargo-hotmerge, the build
# driver that the host's package brings, and installs each package directory
# below /usr/$(get_libdir)/hotmerge/plugins.  After a merge and after a real
# removal it makes a running host look again; the host then replaces exactly
# those plugins whose loadable bytes changed, while it goes on serving.
#
# Nobody is told for another ROOT, in a chroot, if no host runs or if the user
# made a file /etc/hotmerge/no-notify: one elog line says so, and the host finds
# the plugins when it is started or looks by itself.  It is a file because the
# package manager restores all variables of a binary package, and of one that is
# removed, as they were when and where it was built.
#
# A host that refuses a version keeps the one it runs; the merge succeeds and
# ends with a warning.
#
# Debug information may be stripped or split as the user likes: a plugin's hash
# does not cover it.  Compiler flags reach the plugin as in every cargo package.
# @EXAMPLE:
# @CODE
# EAPI=8
#
# CRATES="
#	hotmerge-abi@0.1.0
#	hotmerge-sdk@0.1.0
# "
#
# inherit hotmerge-plugin
#
# DESCRIPTION="Greets callers of a hotmerge host"
# HOMEPAGE="https://example.org/greeter"
# SRC_URI="
#	https://example.org/${P}.tar.xz
#	${CARGO_CRATE_URIS}
# "
#
# LICENSE="MIT"
# SLOT="0"
# KEYWORDS="~amd64"
# @CODE

if [[ -z ${_HOTMERGE_PLUGIN_ECLASS} ]]; then
_HOTMERGE_PLUGIN_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @ECLASS_VARIABLE: RUST_MIN_VER
# @PRE_INHERIT
# @DESCRIPTION:
# The lowest Rust that the package builds with.  The SDK itself needs 1.95.0.
: "${RUST_MIN_VER:=1.95.0}"

inherit cargo

# @ECLASS_VARIABLE: HOTMERGE_PLUGINS
# @DEFAULT_UNSET
# @DESCRIPTION:
# Array of the plugins to build, for workspaces of which not all plugins belong
# into the package.  All of the workspace's plugins if unset.

# @ECLASS_VARIABLE: HOTMERGE_STAGING
# @OUTPUT_VARIABLE
# @DESCRIPTION:
# Where src_compile leaves the finished package directories.
HOTMERGE_STAGING=${WORKDIR}/hotmerge-staging

# The driver runs while the package is built, so it is the build machine's; the
# host's sub-slot is the major version of its plugin interface.
BDEPEND+=" app-admin/hotmerge[driver]"
RDEPEND="app-admin/hotmerge:="

# @FUNCTION: hotmerge-plugin_get_plugindir
# @DESCRIPTION:
# Prints the directory, without prefix, whose subdirectories a host looks at.
hotmerge-plugin_get_plugindir() {
	debug-print-function ${FUNCNAME} "$@"

	echo "/usr/$(get_libdir)/hotmerge/plugins"
}

# @FUNCTION: hotmerge-plugin_src_compile
# @USAGE: [<cargo-hotmerge-option>...]
# @DESCRIPTION:
# Builds the plugins and stages their package directories in HOTMERGE_STAGING.
hotmerge-plugin_src_compile() {
	debug-print-function ${FUNCNAME} "$@"

	local driver=${BROOT}/usr/bin/cargo-hotmerge
	[[ -x ${driver} ]] ||
		die "${driver} is missing: app-admin/hotmerge was cross-compiled or built without USE=driver"

	set -- "${driver}" hotmerge build-plugins \
		--manifest-path "${S}/Cargo.toml" \
		--staging "${HOTMERGE_STAGING}" \
		--offline \
		--locked \
		--notify never \
		$(usev debug "--profile=dev") \
		"${HOTMERGE_PLUGINS[@]/#/--plugin=}" \
		"$@"
	einfo "$*"
	# Not through cargo, which would look for the driver in the package's own
	# CARGO_HOME first.  The driver sets no flags: cargo_env's must survive.
	cargo_env "$@" || die "cargo-hotmerge build-plugins failed"
}

# @FUNCTION: hotmerge-plugin_src_test
# @USAGE: [<cargo-test-option>...]
# @DESCRIPTION:
# Runs the tests of the workspace.
hotmerge-plugin_src_test() {
	debug-print-function ${FUNCNAME} "$@"

	cargo_src_test --offline --locked "$@"
}

# @FUNCTION: hotmerge-plugin_src_install
# @DESCRIPTION:
# Installs each staged package directory into one of its own.
hotmerge-plugin_src_install() {
	debug-print-function ${FUNCNAME} "$@"

	local staged directory
	directory=$(hotmerge-plugin_get_plugindir)
	# Saved with the package: pkg_postinst asks the host about these.
	_HOTMERGE_INSTALLED=()
	for staged in "${HOTMERGE_STAGING}"/*/; do
		staged=${staged%/}
		[[ -f ${staged}/plugin.meta ]] || die "${staged} holds no plugin.meta: did src_compile run?"
		_HOTMERGE_INSTALLED+=( $(_hotmerge-plugin_names "${staged}/plugin.meta") )
		exeinto "${directory}/${staged##*/}"
		doexe "${staged}"/*.so
		insinto "${directory}/${staged##*/}"
		doins "${staged}"/plugin.meta
	done

	einstalldocs
}

# @FUNCTION: hotmerge-plugin_pkg_postinst
# @DESCRIPTION:
# Makes a running host look again.  Never fails.
hotmerge-plugin_pkg_postinst() {
	debug-print-function ${FUNCNAME} "$@"

	hotmerge-plugin_tell_host "${_HOTMERGE_INSTALLED[@]}"
}

# @FUNCTION: hotmerge-plugin_pkg_postrm
# @DESCRIPTION:
# Makes a running host look again, unless another version takes this one's
# place and will tell it.  Never fails.
hotmerge-plugin_pkg_postrm() {
	debug-print-function ${FUNCNAME} "$@"

	[[ -n ${REPLACED_BY_VERSION} ]] || hotmerge-plugin_tell_host
}

# @FUNCTION: hotmerge-plugin_tell_host
# @USAGE: [<plugin>...]
# @DESCRIPTION:
# Makes a running host look again through its service manager, and warns if it
# refused one of the plugins.  If nobody is told, one elog line says why.  For
# ebuilds with phase functions of their own.  Never fails.
hotmerge-plugin_tell_host() {
	debug-print-function ${FUNCNAME} "$@"

	local reason
	if reason=$(_hotmerge-plugin_why_not); then
		elog "No hotmerge host was told of ${PN}: ${reason}."
		return 0
	fi

	ebegin "Telling the hotmerge host to look at its plugins again"
	_hotmerge-plugin_reload "$@"
	eend $? "The host has not taken everything and keeps what it ran before" ||
		ewarn "Run 'hotmerge status' to see what the host refused, and why."
	return 0
}

# @FUNCTION: _hotmerge-plugin_names
# @USAGE: <file>
# @INTERNAL
# @DESCRIPTION:
# Prints the names of a plugin.meta's plugins: the driver writes them first.
_hotmerge-plugin_names() {
	sed -n '/^\[\[plugin]]$/ { n; s/^name = "\(.*\)"$/\1/p }' "$1" || die
}

# @FUNCTION: _hotmerge-plugin_why_not
# @INTERNAL
# @DESCRIPTION:
# Prints why no host is to be told; fails if one is.
_hotmerge-plugin_why_not() {
	if [[ -e ${EROOT}/etc/hotmerge/no-notify ]]; then
		echo "${EROOT}/etc/hotmerge/no-notify says so"
	elif [[ -n ${ROOT} ]]; then
		echo "this is a merge for ${ROOT}"
	elif [[ -z ${EPREFIX} ]] && _hotmerge-plugin_in_chroot; then
		echo "this is a chroot"
	else
		case $(_hotmerge-plugin_manager) in
			prefix)
				"${EPREFIX}/usr/bin/hotmerge" status \
					--runtime-dir "${EPREFIX}/run/hotmerge" &> /dev/null && return 1
				echo "none runs in ${EPREFIX}"
				;;
			systemd)
				systemctl --quiet is-active hotmerge.service && return 1
				echo "hotmerge.service is not active"
				;;
			openrc)
				rc-service --quiet hotmerge status &> /dev/null && return 1
				echo "the hotmerge service is not started"
				;;
			*)
				echo "this system runs neither systemd nor OpenRC"
				;;
		esac
	fi
}

# @FUNCTION: _hotmerge-plugin_in_chroot
# @INTERNAL
# @DESCRIPTION:
# Whether / is another one than that of the machine's first process.  /run may
# be the machine's all the same, and with it the way to its host.
_hotmerge-plugin_in_chroot() {
	[[ ! /proc/1/root -ef / ]]
}

# @FUNCTION: _hotmerge-plugin_manager
# @INTERNAL
# @DESCRIPTION:
# Prints what runs services here.  A prefix has no manager of its own: its host
# answers for itself.
_hotmerge-plugin_manager() {
	if [[ -n ${EPREFIX} ]]; then
		echo prefix
	elif [[ -d /run/systemd/system ]]; then
		echo systemd
	elif [[ -e /run/openrc/softlevel ]]; then
		echo openrc
	fi
}

# @FUNCTION: _hotmerge-plugin_reload
# @USAGE: [<plugin>...]
# @INTERNAL
# @DESCRIPTION:
# Has the running host look again; the status says whether it took the plugins.
_hotmerge-plugin_reload() {
	local told=0 verdict output
	case $(_hotmerge-plugin_manager) in
		systemd) systemctl try-reload-or-restart hotmerge.service &> /dev/null || told=$? ;;
		openrc) rc-service --quiet --ifstarted hotmerge reload &> /dev/null || told=$? ;;
	esac

	# That fails for any plugin on the machine, and says little.  The host itself
	# tells of these plugins.
	output=$(
		"${EPREFIX}/usr/bin/hotmerge" reload \
			--runtime-dir "${EPREFIX}/run/hotmerge" -- "$@" 2>&1
	)
	verdict=$?
	case ${verdict} in
		# Taken; refused (an exit code that hotmerge --help documents).
		0|5)
			echo "${output}"
			return ${verdict}
			;;
		# The host listens elsewhere, or its package is gone.
		*) return ${told} ;;
	esac
}

fi

EXPORT_FUNCTIONS src_compile src_test src_install pkg_postinst pkg_postrm
