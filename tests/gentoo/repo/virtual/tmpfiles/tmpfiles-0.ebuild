# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

DESCRIPTION="Stand-in for whatever carries out tmpfiles.d"

SLOT="0"
KEYWORDS="amd64 arm64"
