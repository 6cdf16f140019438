# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

HOTMERGE_ABI=1
# The live sources are the host's as well.
HOTMERGE_PLUGINS=( announce )

inherit hotmerge-plugin

DESCRIPTION="Plugin of the hotmerge host that renders and checks release announcements"
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
LICENSE+=" Apache-2.0 MIT Unicode-3.0"
SLOT="0"
IUSE="test"
RESTRICT="!test? ( test )"

src_unpack() {
	if [[ ${PV} == 9999 ]]; then
		git-r3_src_unpack
		cargo_live_src_unpack
	else
		cargo_src_unpack
	fi
}

src_test() {
	hotmerge-plugin_src_test --package "${PN}"
}
