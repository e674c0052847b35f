// A button on each LoRA card, with a menu that gives the LoRA a role in the panel.

/** The hidden elements through which the panel is told: a text box, and the button that reads it. */
function nploraRoleInputs(tab) {
    return {
        box: gradioApp().querySelector(`#${tab}_nplora_role textarea, #${tab}_nplora_role input`),
        button: gradioApp().querySelector(`#${tab}_nplora_role_set`),
    };
}

function nploraSetRole(tab, role, name) {
    const { box, button } = nploraRoleInputs(tab);
    if (!box || !button) return;
    box.value = `${role}:${name}`;
    updateInput(box);
    setTimeout(() => button.click()); // Gradio takes the new value after this event.
}

function nploraAddCardButtons() {
    for (const tab of ["txt2img", "img2img"]) {
        const { box, button } = nploraRoleInputs(tab);
        if (!box || !button) continue;
        for (const row of gradioApp().querySelectorAll(`#${tab}_lora_cards .button-row:not(.nplora-card-row)`)) {
            row.classList.add("nplora-card-row");
            row.prepend(nploraCardButton(tab));
        }
    }
}

function nploraCardButton(tab) {
    const button = document.createElement("button");
    button.type = "button";
    button.className = "card-button nplora-card-button";
    button.title = "Use in NP-LoRA";
    button.setAttribute("aria-haspopup", "menu");
    button.addEventListener("click", (event) => {
        event.stopPropagation(); // The card would put <lora:...> into the prompt.
        nploraCardMenu.toggle(button, tab);
    });
    return button;
}

const nploraCardMenu = {
    opener: null,
    element: null,

    toggle(opener, tab) {
        const wasOpen = this.opener === opener;
        this.close();
        if (!wasOpen) this.open(opener, tab);
    },

    open(opener, tab) {
        const name = opener.closest("[data-name]").dataset.name;
        this.opener = opener;
        this.element = document.createElement("div");
        this.element.className = "nplora-card-menu";
        this.element.setAttribute("role", "menu");
        for (const role of ["content", "style"]) {
            const entry = document.createElement("button");
            entry.type = "button";
            entry.setAttribute("role", "menuitem");
            entry.textContent = `Use as ${role}`;
            entry.addEventListener("click", () => {
                this.close();
                nploraSetRole(tab, role, name);
            });
            this.element.append(entry);
        }
        // Inside the app, so that the theme and the host's localisation reach it.
        (opener.closest(".gradio-container") ?? document.body).append(this.element);
        this.place();
        this.element.firstChild.focus({ preventScroll: true });
    },

    /** Below its button, inside the window. An ancestor may shift what is `fixed`, hence the origin. */
    place() {
        const button = this.opener.getBoundingClientRect();
        const { left, top, width, height } = this.element.getBoundingClientRect();
        this.element.style.left = `${Math.max(Math.min(button.left, innerWidth - width), 0) - left}px`;
        this.element.style.top = `${Math.max(Math.min(button.bottom, innerHeight - height), 0) - top}px`;
    },

    close() {
        this.element?.remove();
        this.opener = this.element = null;
    },

    onKey(event) {
        const entries = [...this.element.children];
        const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
        if (event.key === "Escape") {
            const { opener } = this;
            this.close();
            opener.focus({ preventScroll: true });
        } else if (step) {
            entries.at((entries.indexOf(document.activeElement) + step) % entries.length).focus();
        } else {
            return;
        }
        event.preventDefault();
        event.stopPropagation(); // The host's own Escape interrupts the picture in the making.
    },

    /** Closes when a click or the focus goes elsewhere. */
    onElsewhere(target) {
        if (target && !this.element.contains(target) && !this.opener.contains(target)) this.close();
    },
};

onUiLoaded(nploraAddCardButtons);
onAfterUiUpdate(nploraAddCardButtons);

// Capturing, because other parts of the page stop these events on their way up.
for (const [type, handle] of [
    ["keydown", (event) => nploraCardMenu.onKey(event)],
    ["click", (event) => nploraCardMenu.onElsewhere(event.target)],
    ["focusin", (event) => nploraCardMenu.onElsewhere(event.target)],
    ["scroll", () => nploraCardMenu.close()],
]) {
    window.addEventListener(type, (event) => nploraCardMenu.element && handle(event), true);
}
