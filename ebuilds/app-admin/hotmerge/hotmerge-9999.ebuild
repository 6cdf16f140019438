# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

RUST_MIN_VER="1.95.0"

inherit cargo linux-info shell-completion systemd tmpfiles toolchain-funcs

DESCRIPTION="Host for plugins that are replaced while it goes on serving"
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
# Of the crates that are linked in.
LICENSE+=" CC0-1.0 ISC MIT Unicode-3.0"
# The sub-slot is ABI_MAJOR of plugins/abi: when it changes, plugins are rebuilt.
SLOT="0/1"
IUSE="+driver test"
RESTRICT="!test? ( test )"

RDEPEND="
	acct-group/hotmerge
	acct-user/hotmerge
	virtual/tmpfiles
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
	cargo_src_configure --locked

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

	# They come from the program itself, which does not run here if it was built
	# for another machine; the build machine's own, if there is one, does as well.
	local program
	program=$(cargo_target_dir)/hotmerge
	tc-is-cross-compiler && program=${BROOT}/usr/bin/hotmerge
	mkdir "${T}"/man || die
	[[ -x ${program} ]] || return 0
	"${program}" man "${T}"/man || die
	local shell
	for shell in bash fish zsh; do
		"${program}" completions "${shell}" > "${T}/hotmerge.${shell}" || die
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

	insinto /etc/hotmerge
	doins "${T}"/hotmerge.toml
	newinitd "${T}"/hotmerge.initd hotmerge
	newconfd "${T}"/hotmerge.confd hotmerge
	systemd_dounit "${T}"/hotmerge.service
	newtmpfiles "${T}"/hotmerge.tmpfiles hotmerge.conf

	if [[ -e ${T}/hotmerge.bash ]]; then
		doman "${T}"/man/*.1
		newbashcomp "${T}"/hotmerge.bash hotmerge
		newfishcomp "${T}"/hotmerge.fish hotmerge.fish
		newzshcomp "${T}"/hotmerge.zsh _hotmerge
	fi

	einstalldocs
}

pkg_postinst() {
	tmpfiles_process hotmerge.conf

	if [[ -n ${REPLACING_VERSIONS} ]]; then
		elog "A host that runs goes on with its old program and its plugins."
		elog "Restart the hotmerge service to run this version."
	fi
}
