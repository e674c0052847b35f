// Tells the panel what it cannot see of its page: the tab's sampling steps, and whether the theme is dark.

/** The values of a panel's event, the last two of them replaced by the tab's steps, if it shows any, and by the theme. */
function nploraSeen(tab, values) {
    const steps = gradioApp().querySelector(`#${tab}_steps input[type=number]`)?.valueAsNumber;
    return [...values.slice(0, -2), steps || values.at(-2), document.body.classList.contains("dark")];
}
