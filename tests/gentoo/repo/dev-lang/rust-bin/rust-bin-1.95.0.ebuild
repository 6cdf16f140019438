# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="Stand-in that links to a toolchain of the machine the lab runs on"
HOMEPAGE="https://www.rust-lang.org/"
S="${WORKDIR}"

LICENSE="MIT"
SLOT="${PV}"
KEYWORDS="amd64 arm64"

src_install() {
	[[ -x ${LAB_RUST_TOOLCHAIN}/bin/cargo ]] ||
		die "LAB_RUST_TOOLCHAIN names no toolchain: '${LAB_RUST_TOOLCHAIN}'"
	# Link by link, and not with dosym: the toolchain lies outside of any prefix,
	# and Portage would change modes in a directory that it finds in the image.
	dodir "/opt/${P}/bin"
	local program
	for program in "${LAB_RUST_TOOLCHAIN}"/bin/*; do
		ln -s "${program}" "${ED}/opt/${P}/bin/" || die
	done
}
