"""Operations on recorded runs: replay, compare, diff, blame, fork, bundles, verify and schedules."""
