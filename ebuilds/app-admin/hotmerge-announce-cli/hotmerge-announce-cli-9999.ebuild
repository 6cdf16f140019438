# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

RUST_MIN_VER="1.95.0"

inherit cargo shell-completion toolchain-funcs

# The sources are those of the plugin.
MY_P="hotmerge-announce-${PV}"

DESCRIPTION="Writes and checks release announcements, news items and feed entries"
HOMEPAGE="https://github.com/hotmerge/hotmerge"

if [[ ${PV} == 9999 ]]; then
	EGIT_REPO_URI="https://github.com/hotmerge/hotmerge.git"
	inherit git-r3
else
	SRC_URI="
		https://github.com/hotmerge/hotmerge/releases/download/v${PV}/${MY_P}.tar.xz
		https://github.com/hotmerge/hotmerge/releases/download/v${PV}/${MY_P}-crates.tar.xz
	"
	S="${WORKDIR}/${MY_P}"
	KEYWORDS="~amd64 ~arm64"
fi

LICENSE="|| ( Apache-2.0 MIT )"
# Of the crates that are linked in, as pycargoebuild puts it.
LICENSE+=" Apache-2.0 MIT Unicode-3.0"
SLOT="0"
IUSE="test"
RESTRICT="!test? ( test )"

# Rust has no compiler flags that could be found in a file.
QA_FLAGS_IGNORED="usr/bin/hotmerge-announce"

# A maintainer's machine needs no host: the plugin is a package of its own.
_PROGRAM=( --package hotmerge-announcement --features cli --bin hotmerge-announce )

src_unpack() {
	if [[ ${PV} == 9999 ]]; then
		git-r3_src_unpack
		cargo_live_src_unpack
	else
		cargo_src_unpack
	fi
}

src_configure() {
	cargo_src_configure --locked
}

src_compile() {
	cargo_src_compile "${_PROGRAM[@]}"

	# Manual pages and completions come from the program itself.  One that was built for
	# another machine does not run here, so it is built for this one as well.
	if tc-is-cross-compiler; then
		# The user's flags are for the other machine.
		CHOST=${CBUILD} RUSTFLAGS="" tc-env_build cargo_src_compile "${_PROGRAM[@]}"
		CHOST=${CBUILD} _write_documents
	else
		_write_documents
	fi
}

_write_documents() {
	local shell program
	program=$(cargo_target_dir)/hotmerge-announce
	mkdir "${T}"/man || die
	"${program}" man "${T}"/man || die
	for shell in bash fish zsh; do
		"${program}" completions "${shell}" > "${T}/announce.${shell}" || die
	done
}

src_test() {
	cargo_src_test --package hotmerge-announcement --features cli
}

src_install() {
	dobin "$(cargo_target_dir)/hotmerge-announce"
	doman "${T}"/man/*.1
	newbashcomp "${T}"/announce.bash hotmerge-announce
	newfishcomp "${T}"/announce.fish hotmerge-announce.fish
	newzshcomp "${T}"/announce.zsh _hotmerge-announce
	einstalldocs
}
