// Shows a plot of the panel as large as the window.

function nploraEnlarge(button) {
    const dialog = document.createElement("dialog");
    dialog.className = "nplora-large";
    dialog.append(button.querySelector("img").cloneNode());
    dialog.addEventListener("click", () => dialog.close());
    dialog.addEventListener("close", () => dialog.remove());
    dialog.addEventListener("keydown", (event) => event.stopPropagation()); // The host's own Escape interrupts a picture.
    button.closest(".gradio-container").append(dialog);
    dialog.showModal();
}
