# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

EAPI=8

inherit acct-user

DESCRIPTION="User that the hotmerge host runs as"

# Overlays take whatever is free.
ACCT_USER_ID=-1
ACCT_USER_GROUPS=( hotmerge )
ACCT_USER_HOME=/var/lib/hotmerge
ACCT_USER_HOME_PERMS=0750

acct-user_add_deps
