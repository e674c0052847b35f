// Puts a tag into the prompt box so that Ctrl+Z takes it out again.

/** What an <nplora:...> tag fuses, as text to compare; "" if it does not name two LoRAs. */
function nploraPair(tag) {
    const values = /^<nplora:([^<>]+)>$/i.exec(tag)?.[1].split(":") ?? [];
    const names = values.filter((value) => !value.includes("=")).map((value) => value.trim());
    return names[0] && names[1] ? `${names[0]}:${names[1]}` : "";
}

/** What lets the button that inserts a tag be pressed while there is one: the one spelling of Gradio 4, or of Gradio 3. */
function nploraInsertable(tag) {
    const interactive = Boolean(nploraPair(tag));
    return { __type__: "update", interactive, mode: interactive ? "dynamic" : "static" };
}

/** Replaces the prompt's tag for the same two LoRAs, or adds the tag at the end. Ignores any other text. */
function nploraInsert(tab, tag) {
    const box = gradioApp().querySelector(`#${tab}_prompt textarea`);
    const pair = nploraPair(tag);
    if (!box || !pair) return;
    const old = [...box.value.matchAll(/<nplora:[^<>]+>/gi)].find((match) => nploraPair(match[0]) === pair);
    if (old) {
        nploraType(box, old.index, old.index + old[0].length, tag);
    } else {
        nploraType(box, box.value.length, box.value.length, nploraGap(box.value) + tag);
    }
}

/** What separates a prompt from a tag after it: a line break where a comment would swallow the tag. */
function nploraGap(prompt) {
    if (/#|\/\//.test(prompt.split("\n").pop())) return "\n";
    return /\S$/.test(prompt) ? " " : "";
}

/** Types over a part of a box. A value that is set by script would empty the browser's list of steps to undo. */
function nploraType(box, start, end, text) {
    box.focus();
    box.setSelectionRange(start, end);
    if (document.activeElement === box && document.execCommand("insertText", false, text)) return;
    box.setRangeText(text, start, end, "end");
    updateInput(box);
}
