# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

inherit acct-group

DESCRIPTION="Group that the hotmerge host runs as"

# Overlays take whatever is free.
ACCT_GROUP_ID=-1
