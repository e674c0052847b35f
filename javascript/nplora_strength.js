// Where mu lies on the panel's slider: mu = 10 * position^3, so that small values have more room.

function nploraLimited(value) {
    return Math.min(Math.max(Number(value) || 0, 0), 1);
}

/** mu, with two significant digits, for a position between 0 and 1. */
function nploraMu(position) {
    return Number((10 * nploraLimited(position) ** 3).toPrecision(2));
}

/** The position, between 0 and 1, for mu; anything that is no number counts as 0. */
function nploraPosition(mu) {
    return Math.cbrt(nploraLimited(mu / 10));
}
