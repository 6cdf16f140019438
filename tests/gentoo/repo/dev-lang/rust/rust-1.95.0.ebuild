# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="Stand-in that is only there to be depended on; labs install rust-bin"
HOMEPAGE="https://www.rust-lang.org/"
S="${WORKDIR}"

LICENSE="MIT"
SLOT="${PV}"
KEYWORDS="amd64 arm64"
