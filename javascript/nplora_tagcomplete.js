// Completes <nplora:CONTENT:STYLE...> where the extension a1111-sd-webui-tagcomplete is installed.
//
// From that extension: PARSERS, QUEUE_SANITIZE, QUEUE_AFTER_INSERT, AutocompleteResult, ResultType, autocomplete,
// loras, lycos, results, and tagword, the text before the caret that a choice replaces.

/** The box that was typed in last: tagcomplete does not tell a parser's condition where it is. */
let nploraTypedIn = null;

/** The LoRAs that tagcomplete knows and a tag can hold: their names, with the key it sorts them by. */
function nploraLoras() {
    const known = [typeof loras === "undefined" ? [] : loras, typeof lycos === "undefined" ? [] : lycos].flat();
    const named = known.map(([path, sortKey]) => ({
        name: path.trim().replace(/^.*\//, "").replace(/\.(safetensors|ckpt|pt)$/i, ""),
        sortKey,
    }));
    return named.filter(({ name }) => !/[:<>=]/.test(name));
}

/** The LoRAs whose name contains some text; case does not count, and an underscore is as good as a space. */
function nploraLorasLike(text) {
    const folded = (name) => name.toLowerCase().replaceAll("_", " ");
    const wanted = folded(text);
    return nploraLoras().filter(({ name }) => folded(name).includes(wanted));
}

/**
 * The tag around the caret of a box, or null.
 *
 * text   from its "<" to the end of the value that the caret is in
 * value  that value
 * names  the LoRAs named before that value
 * role   "content" or "style"; "" for a value that names no LoRA
 * next   the sign after the value, "" in a tag that is not closed yet
 */
function nploraTagAt(box) {
    const caret = box.selectionStart;
    const typed = /<nplora:[^<>\n\r]*>?$/.exec(box.value.slice(0, caret))?.[0];
    if (!typed) return null;
    if (typed.endsWith(">")) return { text: typed, value: "", names: [], role: "", next: "" };
    const after = /^([^<>:\n\r]*)(?=([:>]))(?=[^<>\n\r]*>)/.exec(box.value.slice(caret));
    const [, rest, next] = after ?? ["", "", ""];
    const text = typed + rest;
    const values = text.split(":").slice(1);
    const value = values.pop();
    const names = values.filter((item) => !item.includes("=")).map((item) => item.trim());
    const role = ["content", "style"][names.length] ?? "";
    // In a tag that nobody has closed, words that are no LoRA's name are the prompt that goes on.
    if (!next && /[\s,]/.test(value) && !(role && nploraLorasLike(value).length)) return null;
    return { text, value, names, role, next };
}

/** What a chosen name makes of the tag: the next name follows, or what is still missing of the tag. */
function nploraCompleted({ text, value, role, next }, name) {
    const head = text.slice(0, text.length - value.length) + name;
    if (next === ":") return head;
    if (role === "content") return `${head}:`;
    const mu = (typeof opts === "undefined" ? null : opts.nplora_mu) || "0.5";
    return next ? `${head}:${mu}` : `${head}:${mu}>`;
}

/** The entries of tagcomplete's list for the tag at the caret of a box. */
function nploraResults(box) {
    const tag = nploraTagAt(box);
    if (!tag?.role) return [];
    const found = nploraLorasLike(tag.value).filter(({ name }) => !tag.names.includes(name));
    if (tag.next === ":" && found.some(({ name }) => name === tag.value)) return [];
    return found.map(({ name, sortKey }) => {
        // The one type of entry that gets neither a comma nor a space, and is not counted as a use of a LoRA.
        const result = new AutocompleteResult(name, ResultType.wildcardFile);
        return Object.assign(result, { meta: `NP-LoRA ${tag.role}`, sortKey, nploraText: nploraCompleted(tag, name) });
    });
}

/** What tagcomplete puts into the prompt for an entry of ours; undefined for another's. */
function nploraChosen(type, text) {
    return results.find((result) => result.text === text)?.nploraText;
}

function nploraAtTag() {
    const tag = nploraTypedIn && nploraTagAt(nploraTypedIn);
    // Its own word ends at a space or comma, so that it would replace, or look up, a part of the tag.
    if (tag) tagword = tag.text;
    return Boolean(tag);
}

function nploraAfterChoice(type, text, prompt, box) {
    const tag = nploraTagAt(box);
    if (!tag) return false;
    box.focus();
    autocomplete(box, prompt, tag.text);
    return true;
}

function nploraSetUpTagcomplete() {
    const needed = [
        typeof PARSERS,
        typeof QUEUE_SANITIZE,
        typeof QUEUE_AFTER_INSERT,
        typeof AutocompleteResult,
        typeof ResultType,
        typeof autocomplete,
        typeof tagword,
    ];
    if (needed.includes("undefined")) return;

    for (const parser of PARSERS) {
        const condition = parser.triggerCondition;
        if (typeof condition === "function") {
            parser.triggerCondition = (...args) => !nploraAtTag() && condition.apply(parser, args);
        }
    }
    PARSERS.push({ triggerCondition: nploraAtTag, parse: nploraResults });
    QUEUE_SANITIZE.unshift(nploraChosen);
    QUEUE_AFTER_INSERT.push(nploraAfterChoice);

    const remember = ({ target }) => {
        if (typeof target.value === "string") nploraTypedIn = target;
    };
    document.addEventListener("input", remember, true);
    // After its own listener, which looks no further if the typed sign changed no word of its own, as after a space.
    document.addEventListener("input", ({ target, inputType }) => {
        if (!inputType || !target.classList.contains("autocomplete")) return;
        const tag = nploraTagAt(target);
        if (tag && tag.text !== tagword) autocomplete(target, target.value, tag.text);
    });
}

onUiLoaded(nploraSetUpTagcomplete);
