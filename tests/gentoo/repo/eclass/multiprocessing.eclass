# Copyright 2026 Gentoo Authors
# Distributed under the terms of the GNU General Public License v2

# @ECLASS: multiprocessing.eclass
# @MAINTAINER:
# hotmerge developers <gentoo@hotmerge.invalid>
# @SUPPORTED_EAPIS: 8
# @BLURB: stand-in: how many jobs the user asked for

if [[ -z ${_MULTIPROCESSING_ECLASS} ]]; then
_MULTIPROCESSING_ECLASS=1

case ${EAPI} in
	8) ;;
	*) die "${ECLASS}: EAPI ${EAPI:-0} not supported" ;;
esac

# @FUNCTION: makeopts_jobs
# @USAGE: [makeflags]
# @DESCRIPTION:
# Prints the number after the last -j of MAKEOPTS, or the number of processors.
makeopts_jobs() {
	local word jobs=
	local -a words
	read -ra words <<< "${*:-${MAKEOPTS}}"
	for word in "${words[@]}"; do
		[[ ${word} =~ ^(-j|--jobs=)([0-9]+)$ ]] && jobs=${BASH_REMATCH[2]}
	done
	echo "${jobs:-$(nproc)}"
}

fi
