// What the panel's chooser of blocks writes into the line beside it.

/**
 * The line `block@value,...` with one more block, unless it has that one, and an empty chooser for the next.
 * The block gets the strength that all blocks have by now; `own` is what counts while that is left empty.
 */
function nploraAddBlock(block, line, strength, own) {
    const pieces = (line ?? "").split(/[\s,;]+/).filter(Boolean);
    const there = pieces.map((piece) => piece.split("@")[0].toLowerCase());
    if (block && !there.includes(block)) pieces.push(`${block}@${String(strength ?? "").trim() || own}`);
    return [pieces.join(","), ""];
}
