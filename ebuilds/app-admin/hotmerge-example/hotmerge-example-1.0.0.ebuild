# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

HOTMERGE_ABI=1
CRATES="
	hotmerge-abi@0.1.0
	hotmerge-sdk@0.1.0
"

inherit hotmerge-plugin

DESCRIPTION="Example of a plugin of the hotmerge host, from a source tree of its own"
HOMEPAGE="https://github.com/hotmerge/hotmerge-example"

if [[ ${PV} == 9999 ]]; then
	EGIT_REPO_URI="https://github.com/hotmerge/hotmerge-example.git"
	inherit git-r3
else
	SRC_URI="
		https://github.com/hotmerge/hotmerge-example/releases/download/v${PV}/${P}.tar.xz
		${CARGO_CRATE_URIS}
	"
	KEYWORDS="~amd64 ~arm64"
fi

LICENSE="|| ( Apache-2.0 MIT )"
SLOT="0"

src_unpack() {
	if [[ ${PV} == 9999 ]]; then
		git-r3_src_unpack
		cargo_live_src_unpack
	else
		cargo_src_unpack
	fi
}
