# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

RUST_MIN_VER="1.95.0"

inherit cargo hotmerge-service linux-info shell-completion systemd tmpfiles toolchain-funcs

DESCRIPTION="Host that reloads plugins without interrupting service"
HOMEPAGE="https://github.com/hotmerge/hotmerge"

if [[ ${PV} == 9999 ]]; then
	EGIT_REPO_URI="https://github.com/hotmerge/hotmerge.git"
	inherit git-r3
else
	SRC_URI="
		https://github.com/hotmerge/hotmerge/releases/download/v${PV}/${P}.tar.xz
		https://github.com/hotmerge/hotmerge/releases/download/v${PV}/${P}-crates.tar.xz
	"
	KEYWORDS="~amd64 ~arm64"
fi

LICENSE="|| ( Apache-2.0 MIT )"
# Of the crates that are linked in, as pycargoebuild puts it.
LICENSE+=" Apache-2.0 BSD CC0-1.0 ISC MIT Unicode-3.0 ZLIB"
# The sub-slot is ABI_MAJOR of plugins/abi.  Packages of plugins depend on the one that
# their SDK speaks, so a host that cannot run them does not replace one that does.
SLOT="0/1"
IUSE="+driver +http +metrics +page test +top"
REQUIRED_USE="metrics? ( http ) page? ( http )"
RESTRICT="!test? ( test )"

RDEPEND="
	acct-group/hotmerge
	acct-user/hotmerge
"

# Rust has no compiler flags that could be found in a file.
QA_FLAGS_IGNORED="
	usr/bin/cargo-hotmerge
	usr/bin/hotmerge
	usr/libexec/hotmerge/hotmerge-worker
"

# Sandboxed plugins need the first four; without fanotify one watcher is left.
CONFIG_CHECK="~USER_NS ~PID_NS ~SECCOMP_FILTER ~SECURITY_LANDLOCK ~INOTIFY_USER ~FANOTIFY"

pkg_setup() {
	linux-info_pkg_setup
	rust_pkg_setup
}

src_unpack() {
	if [[ ${PV} == 9999 ]]; then
		git-r3_src_unpack
		cargo_live_src_unpack
	else
		cargo_src_unpack
	fi
}

# The driver builds plugins and belongs on the machine that does; a cross build
# makes a host for another one.
_builds_driver() {
	use driver && ! tc-is-cross-compiler
}

src_configure() {
	local myfeatures=(
		log-file log-journald log-syslog
		$(usev http) $(usev metrics) $(usev page) $(usev top)
	)
	cargo_src_configure --locked --no-default-features

	scripts/services/render "${T}" \
		bindir="${EPREFIX}/usr/bin" \
		libdir="${EPREFIX}/usr/$(get_libdir)" \
		sysconfdir="${EPREFIX}/etc" \
		rundir="${EPREFIX}/run" \
		statedir="${EPREFIX}/var/lib" \
		logdir="${EPREFIX}/var/log" || die
}

src_compile() {
	local targets=(
		--package hotmerge-program --bin hotmerge
		--package hotmerge-worker --bin hotmerge-worker
	)
	_builds_driver && targets+=( --package hotmerge-xtask --bin cargo-hotmerge )
	cargo_src_compile "${targets[@]}"

	# Manual pages and completions come from the programs themselves.  What was built
	# for another machine does not run here, so it is built for this one as well: what
	# the package holds must not depend on what else is installed.
	mkdir "${T}"/man || die
	if tc-is-cross-compiler; then
		_build_natively --package hotmerge-program --bin hotmerge
		CHOST=${CBUILD} _write_documents hotmerge
	else
		_write_documents hotmerge
		_builds_driver && _write_documents cargo-hotmerge
	fi
	return 0
}

_build_natively() {
	# The user's flags are for the other machine.
	CHOST=${CBUILD} RUSTFLAGS="" tc-env_build cargo_src_compile "$@"
}

_write_documents() {
	local program shell
	program=$(cargo_target_dir)/$1
	"${program}" man "${T}"/man || die
	for shell in bash fish zsh; do
		"${program}" completions "${shell}" > "${T}/$1.${shell}" || die
	done
}

src_test() {
	# Other tests build plugins in workspaces of their own, start hosts, or want
	# root and Portage itself.
	cargo_src_test --workspace --exclude hotmerge-tests --lib --bins
}

src_install() {
	dobin "$(cargo_target_dir)/hotmerge"
	exeinto /usr/libexec/hotmerge
	doexe "$(cargo_target_dir)/hotmerge-worker"
	_builds_driver && dobin "$(cargo_target_dir)/cargo-hotmerge"

	keepdir "/usr/$(get_libdir)/hotmerge/plugins"

	keepdir /etc/hotmerge/keys.d
	insinto /etc/hotmerge
	doins "${T}"/hotmerge.toml
	newinitd "${T}"/hotmerge.initd hotmerge
	newconfd "${T}"/hotmerge.confd hotmerge
	systemd_dounit "${T}"/hotmerge.service
	use http && systemd_dounit "${T}"/hotmerge-http.socket
	newtmpfiles "${T}"/hotmerge.tmpfiles hotmerge.conf
	insinto /etc/logrotate.d
	newins "${T}"/hotmerge.logrotate hotmerge

	doman "${T}"/man/*.[15]
	_install_completions hotmerge
	_builds_driver && _install_completions cargo-hotmerge

	einstalldocs
}

_install_completions() {
	newbashcomp "${T}/$1.bash" "$1"
	newfishcomp "${T}/$1.fish" "$1.fish"
	newzshcomp "${T}/$1.zsh" "_$1"
}

pkg_postinst() {
	tmpfiles_process hotmerge.conf

	[[ -n ${REPLACING_VERSIONS} ]] || return 0
	hotmerge-service_is_elsewhere && return
	elog "A running host keeps its old program and its plugins."
	elog "Restart the hotmerge service to run this version."
	_warn_of_lost_plugins
}

# Before restarting the host, an operator should know which plugins it will no longer run.
_warn_of_lost_plugins() {
	local line refused
	refused=$(
		"${EPREFIX}"/usr/bin/hotmerge verify --brief --config "$(hotmerge-service_config)" 2> /dev/null
	)
	[[ -n ${refused} ]] || return 0
	ewarn "A restarted host would refuse these installed plugins; rebuild them first:"
	while IFS= read -r line; do
		ewarn "  ${line}"
	done <<< "${refused}"
}

pkg_prerm() {
	[[ -z ${REPLACED_BY_VERSION} ]] || return 0
	hotmerge-service_is_elsewhere && return
	timeout 2 "${EPREFIX}"/usr/bin/hotmerge status \
		--runtime-dir "$(hotmerge-service_runtime_dir)" &> /dev/null
	case $? in
		# No host, or no program to ask it with; one that hangs is a host.
		4|126|127) return 0 ;;
	esac
	ewarn "A hotmerge host still runs although its program is removed: stop its service."
}
