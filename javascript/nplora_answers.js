// Numbers what the panel asks the server, so that an answer to an older question never stays.
// What is asked is the id of the part that shows the answer.

/** What is asked -> the number of its newest question. */
const nploraNewest = {};

/** How often any question was put again, so that no two are spelled alike. */
let nploraRepeats = 0;

/** Whether what the part shows is of an older question: the style sheet dims it after a moment. */
function nploraAwaited(what, awaited) {
    gradioApp().querySelector(`[id="${what}"]`)?.toggleAttribute("data-nplora-awaited", awaited);
}

/** The next question, which makes all before it old. */
function nploraAsk(what) {
    nploraNewest[what] = (nploraNewest[what] ?? 0) + 1;
    nploraAwaited(what, true);
    return String(nploraNewest[what]);
}

/**
 * What is shown after an answer, `QUESTION TEXT`, and the question that stands then.
 *
 * An answer to an older question is dropped, and the newest put again: Gradio 3 drops what is asked while it waits.
 */
function nploraAnswered(what, answer, shown, question) {
    const [, number, text] = /^(\d+)\S* ([^]*)$/.exec(answer);
    if (Number(number) === nploraNewest[what]) {
        nploraAwaited(what, false);
        return [text, question];
    }
    return [shown, `${nploraNewest[what]}.${++nploraRepeats}`];
}
