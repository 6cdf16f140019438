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
# removal it makes a running host rescan; the host then replaces exactly
# those plugins whose loadable bytes changed, while it goes on serving.
#
# No host is notified for another ROOT, in a chroot, if no host runs or if the user
# made a file /etc/hotmerge/no-notify: one elog line says so, and the host finds
# the plugins when it is started or rescans by itself.  It is a file because the
# package manager restores all variables of a binary package, and of one that is
# removed, as they were when and where it was built.
#
# A host that refuses a version keeps the one it runs; the merge succeeds and
# ends with a warning that names plugin and reason.  So does one that a host does
# not answer within a few seconds.  What other packages have in the plugin
# directory is none of this one's business.
#
# Debug information may be stripped or split as the user likes: a plugin's hash
# does not cover it.  Compiler flags reach the plugin as in every cargo package.
# @EXAMPLE:
# @CODE
# EAPI=8
#
# HOTMERGE_ABI=1
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

# @ECLASS_VARIABLE: HOTMERGE_ABI
# @PRE_INHERIT
# @REQUIRED
# @DESCRIPTION:
# Major version of the plugin interface that the package's SDK speaks: the one
# that a host must have to load its plugins.  src_compile holds the plugins to it.
case ${HOTMERGE_ABI} in
	""|0*|*[!0-9]*)
		die "${ECLASS}: HOTMERGE_ABI must be the major version of the SDK's plugin interface, such as 1"
		;;
esac

inherit cargo hotmerge-service

# @ECLASS_VARIABLE: HOTMERGE_PLUGINS
# @DEFAULT_UNSET
# @DESCRIPTION:
# Array of the plugins to build, for workspaces of which not all plugins belong
# into the package.  All of the workspace's plugins if unset.

# @ECLASS_VARIABLE: HOTMERGE_SIGN_KEY
# @USER_VARIABLE
# @DEFAULT_UNSET
# @DESCRIPTION:
# File of a secret key, as cargo hotmerge sign --new-key or minisign -G makes it.
# If set, src_install signs each package, for hosts that require signatures: a
# machine that builds binary packages for others has it in its make.conf.  The
# signature is a plugin.meta.minisig beside plugin.meta.
# @EXAMPLE:
# @CODE
# HOTMERGE_SIGN_KEY="/etc/portage/hotmerge.key"
# HOTMERGE_SIGN_PASSWORD_FILE="/etc/portage/hotmerge.password"
# @CODE

# @ECLASS_VARIABLE: HOTMERGE_SIGN_PASSWORD_FILE
# @USER_VARIABLE
# @DEFAULT_UNSET
# @DESCRIPTION:
# File whose first line is the password of HOTMERGE_SIGN_KEY.  A key with a password
# needs it: nobody is asked during a build.

# @ECLASS_VARIABLE: HOTMERGE_STAGING
# @OUTPUT_VARIABLE
# @DESCRIPTION:
# Where src_compile leaves the finished package directories.
HOTMERGE_STAGING=${WORKDIR}/hotmerge-staging

# The driver runs while the package is built, so it is the build machine's.
BDEPEND+=" app-admin/hotmerge[driver]"
# The host's sub-slot is the major version of its plugin interface.  The one that
# the plugins were built for is known and checked, so nothing is to be bound: to
# build them again would not make them speak another.
RDEPEND="app-admin/hotmerge:0/${HOTMERGE_ABI}"

# How long a merge may wait for a host: for its position before, for its answer after.
_HOTMERGE_POSITION_SECONDS=2
_HOTMERGE_ANSWER_SECONDS=8

# @FUNCTION: hotmerge-plugin_get_plugindir
# @DESCRIPTION:
# Prints the directory, without prefix, whose subdirectories a host scans.
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

	_hotmerge-plugin_check_abi
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
# Installs each staged package directory into one of its own, signed if
# HOTMERGE_SIGN_KEY is set.
hotmerge-plugin_src_install() {
	debug-print-function ${FUNCNAME} "$@"

	local staged directory
	[[ -z ${HOTMERGE_SIGN_KEY} ]] || _hotmerge-plugin_sign
	directory=$(hotmerge-plugin_get_plugindir)
	# Rust records no compiler flags in a file, and the package manager would miss them.
	QA_FLAGS_IGNORED+=" ${directory#/}/.*"
	# Saved with the package: pkg_postinst asks the host about these.
	_HOTMERGE_INSTALLED=() _HOTMERGE_PACKAGES=()
	for staged in "${HOTMERGE_STAGING}"/*/; do
		staged=${staged%/}
		[[ -f ${staged}/plugin.meta ]] || die "${staged} holds no plugin.meta: did src_compile run?"
		_HOTMERGE_PACKAGES+=( "${staged##*/}" )
		_HOTMERGE_INSTALLED+=( $(_hotmerge-plugin_names "${staged}/plugin.meta") )
		exeinto "${directory}/${staged##*/}"
		doexe "${staged}"/*.so
		insinto "${directory}/${staged##*/}"
		doins "${staged}"/plugin.meta
		[[ ! -f ${staged}/plugin.meta.minisig ]] || doins "${staged}"/plugin.meta.minisig
	done

	einstalldocs
}

# @FUNCTION: _hotmerge-plugin_sign
# @INTERNAL
# @DESCRIPTION:
# Signs what was staged.  Without a terminal, so that a key whose password is not
# known fails the build instead of holding it up.
_hotmerge-plugin_sign() {
	set -- "${BROOT}/usr/bin/cargo-hotmerge" hotmerge sign \
		--key "${HOTMERGE_SIGN_KEY}" \
		${HOTMERGE_SIGN_PASSWORD_FILE:+--password-file "${HOTMERGE_SIGN_PASSWORD_FILE}"} \
		"${HOTMERGE_STAGING}"
	einfo "$*"
	setsid --wait "$@" < /dev/null || die "cargo-hotmerge sign failed"
}

# @FUNCTION: hotmerge-plugin_doannouncement
# @USAGE: [<file>]
# @DESCRIPTION:
# Installs the announcement of the release as documentation: ANNOUNCEMENT.md for
# people and feed-entry.xml for feeds, both generated of one file, which is
# ANNOUNCEMENT.toml by default.  Dies if the announcement breaks a rule.  The ebuild
# calls it in src_install and names the program that generates them:
# @CODE
# BDEPEND+=" app-admin/hotmerge-announce-cli"
# @CODE
# The news item is made of the same file when the release is made, since it is part
# of the repository and not of a package:
# @CODE
# hotmerge-announce release ANNOUNCEMENT.toml --overlay /path/to/repository
# @CODE
hotmerge-plugin_doannouncement() {
	debug-print-function ${FUNCNAME} "$@"

	local program=${BROOT}/usr/bin/hotmerge-announce made=${T}/announcement
	[[ -x ${program} ]] ||
		die "${program} is missing: add app-admin/hotmerge-announce-cli to BDEPEND"
	einfo "${program} release ${1:-ANNOUNCEMENT.toml} --out ${made}"
	"${program}" release "${1:-ANNOUNCEMENT.toml}" --out "${made}" ||
		die "hotmerge-announce release failed"
	"${program}" check "${made}"/ANNOUNCEMENT.md "${made}"/feed-entry.xml ||
		die "the announcement breaks rules"
	dodoc "${made}"/ANNOUNCEMENT.md "${made}"/feed-entry.xml
}

# @FUNCTION: hotmerge-plugin_pkg_preinst
# @DESCRIPTION:
# Remembers what a running host has done so far.  Never fails.
hotmerge-plugin_pkg_preinst() {
	debug-print-function ${FUNCNAME} "$@"

	_hotmerge-plugin_remember
}

# @FUNCTION: hotmerge-plugin_pkg_postinst
# @DESCRIPTION:
# Makes a running host rescan, and reports what it did with the package's
# plugins.  Never fails.
hotmerge-plugin_pkg_postinst() {
	debug-print-function ${FUNCNAME} "$@"

	hotmerge-plugin_tell_host "${_HOTMERGE_INSTALLED[@]}"
}

# @FUNCTION: hotmerge-plugin_pkg_prerm
# @DESCRIPTION:
# Remembers what a running host has done so far.  Never fails.
hotmerge-plugin_pkg_prerm() {
	debug-print-function ${FUNCNAME} "$@"

	[[ -n ${REPLACED_BY_VERSION} ]] || _hotmerge-plugin_remember
}

# @FUNCTION: hotmerge-plugin_pkg_postrm
# @DESCRIPTION:
# Makes a running host rescan, unless another version takes this one's
# place and will notify it.  Never fails.
hotmerge-plugin_pkg_postrm() {
	debug-print-function ${FUNCNAME} "$@"

	[[ -n ${REPLACED_BY_VERSION} ]] || hotmerge-plugin_tell_host --removed "${_HOTMERGE_INSTALLED[@]}"
}

# @FUNCTION: hotmerge-plugin_tell_host
# @USAGE: [--removed] [<plugin>...]
# @DESCRIPTION:
# Makes a running host rescan, waits some seconds, reports what it did with the
# plugins, and warns if it refused one.  If no host is notified, one elog line says
# why.  For ebuilds with phase functions of their own.  Never fails.
hotmerge-plugin_tell_host() {
	debug-print-function ${FUNCNAME} "$@"

	local reason
	if reason=$(_hotmerge-plugin_why_not); then
		elog "No hotmerge host was notified of ${PN}: ${reason}."
		return 0
	fi

	local output code
	ebegin "Asking the hotmerge host to rescan its plugins"
	output=$(_hotmerge-plugin_reload "$@" 2>&1)
	code=$?
	# These are exit codes that hotmerge --help documents.
	case ${code} in
		0) eend 0 ;;
		5) eend 1 "The host refused what was merged" ;;
		*) eend 1 "The result is unknown" ;;
	esac
	_hotmerge-plugin_show "${code}" "${output}"
	return 0
}

# @FUNCTION: _hotmerge-plugin_show
# @USAGE: <exit-code> <output>
# @INTERNAL
# @DESCRIPTION:
# Passes on what the host said, and where to learn more.
_hotmerge-plugin_show() {
	local line say=ewarn
	[[ $1 -eq 0 ]] && say=einfo
	while IFS= read -r line; do
		[[ -z ${line} ]] || "${say}" "  ${line}"
	done <<< "$2"
	[[ $1 -eq 0 ]] && return
	[[ $1 -eq 5 ]] || ewarn "The package is merged. A running host picks it up at its next scan."
	ewarn "Run '$(_hotmerge-plugin_advice)' to see what it runs."
}

# @FUNCTION: _hotmerge-plugin_advice
# @INTERNAL
# @DESCRIPTION:
# Prints the command that shows a person this host's status.
_hotmerge-plugin_advice() {
	local directory
	directory=$(hotmerge-service_runtime_dir)
	if [[ -z ${EPREFIX} && ${directory} == /run/hotmerge ]]; then
		echo "hotmerge status"
	else
		echo "${EPREFIX}/usr/bin/hotmerge status --runtime-dir ${directory}"
	fi
}

# @FUNCTION: _hotmerge-plugin_check_abi
# @INTERNAL
# @DESCRIPTION:
# Dies if a staged plugin speaks another interface than the package depends on.
_hotmerge-plugin_check_abi() {
	local meta abi
	for meta in "${HOTMERGE_STAGING}"/*/plugin.meta; do
		[[ -f ${meta} ]] || die "src_compile staged nothing in ${HOTMERGE_STAGING}"
		# Once for each plugin, always written by the driver in this way.
		while read -r abi; do
			[[ ${abi} == "${HOTMERGE_ABI}" ]] ||
				die "${meta%/*}: built for plugin interface ${abi}, but HOTMERGE_ABI is ${HOTMERGE_ABI}; set it to what the package's SDK speaks"
		done < <(sed -n 's/^abi = "\([0-9]*\)\..*"$/\1/p' "${meta}")
	done
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
# Prints why no host is to be notified; fails if one is.
_hotmerge-plugin_why_not() {
	if [[ -e ${EROOT}/etc/hotmerge/no-notify ]]; then
		echo "${EROOT}/etc/hotmerge/no-notify says so"
	elif hotmerge-service_is_elsewhere; then
		echo "${HOTMERGE_SERVICE_ELSEWHERE}"
	else
		case $(hotmerge-service_manager) in
			prefix)
				# One that hangs runs: only its absence is an answer.
				_hotmerge-plugin_status &> /dev/null
				case $? in
					4|126|127) echo "none runs in ${EPREFIX}" ;;
					*) return 1 ;;
				esac
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

# @FUNCTION: _hotmerge-plugin_status
# @INTERNAL
# @DESCRIPTION:
# Prints the host's status as JSON, if it gives one soon.
_hotmerge-plugin_status() {
	timeout "${_HOTMERGE_POSITION_SECONDS}" "${EPREFIX}/usr/bin/hotmerge" status --json \
		--runtime-dir "$(hotmerge-service_runtime_dir)"
}

# @FUNCTION: _hotmerge-plugin_remember
# @INTERNAL
# @DESCRIPTION:
# Remembers the end of the host's history: a host that watches its directory may
# be done with the package before it is notified.
_hotmerge-plugin_remember() {
	_HOTMERGE_POSITION=
	_hotmerge-plugin_why_not > /dev/null && return
	_HOTMERGE_POSITION=$(_hotmerge-plugin_status 2> /dev/null | sed -n 's/.*"position":\([0-9]*\).*/\1/p')
	return 0
}

# @FUNCTION: _hotmerge-plugin_reload
# @USAGE: [--removed] [<plugin>...]
# @INTERNAL
# @DESCRIPTION:
# Has the running host rescan and prints what it did with the plugins, in
# short lines; the status is hotmerge's.  Only a host that cannot be asked itself
# is notified through its service manager, which can say less.
_hotmerge-plugin_reload() {
	local removed=()
	[[ $1 == --removed ]] && removed=( --removed ) && shift

	local options=( --brief --timeout "${_HOTMERGE_ANSWER_SECONDS}" )
	[[ -n ${_HOTMERGE_POSITION} ]] && options+=( --since "${_HOTMERGE_POSITION}" )
	if (( $# )); then
		options+=( "${removed[@]}" )
		[[ -n ${removed[*]} ]] || options+=( "${_HOTMERGE_PACKAGES[@]/#/--package=}" )
	fi
	"${EPREFIX}/usr/bin/hotmerge" reload --runtime-dir "$(hotmerge-service_runtime_dir)" \
		"${options[@]}" -- "$@"
	local code=$?
	case ${code} in
		4|126|127) ;;
		*) return ${code} ;;
	esac

	local manager=()
	case $(hotmerge-service_manager) in
		systemd) manager=( systemctl try-reload-or-restart hotmerge.service ) ;;
		openrc) manager=( rc-service --quiet --ifstarted hotmerge reload ) ;;
		*) return ${code} ;;
	esac
	# Its exit codes are its own.
	timeout "${_HOTMERGE_ANSWER_SECONDS}" "${manager[@]}" || return 1
}

fi

EXPORT_FUNCTIONS src_compile src_test src_install pkg_preinst pkg_postinst pkg_prerm pkg_postrm
