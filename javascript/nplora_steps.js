// Tells the panel how many sampling steps its tab asks for.

/** The values of a panel's event, the last of them replaced by the tab's steps, if the page shows any. */
function nploraSteps(tab, values) {
    const steps = gradioApp().querySelector(`#${tab}_steps input[type=number]`)?.valueAsNumber;
    return steps ? [...values.slice(0, -1), steps] : values;
}
