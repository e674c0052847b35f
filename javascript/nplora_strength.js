// Where a strength lies on its slider: strength = most * position^3, so that small values have more room.

function nploraLimited(value) {
    return Math.min(Math.max(Number(value) || 0, 0), 1);
}

/** The strength, with two significant digits, for a position between 0 and 1. */
function nploraStrength(position, most) {
    return Number((most * nploraLimited(position) ** 3).toPrecision(2));
}

/** The position, between 0 and 1, for a strength; anything that is no number counts as 0. */
function nploraPosition(strength, most) {
    return Math.cbrt(nploraLimited(strength / most));
}

/** The position for a strength: the one that the slider has, if it stands for it already. */
function nploraFollow(strength, position, most) {
    return nploraStrength(position, most) === strength ? position : nploraPosition(strength, most);
}
