// The helpers that a host gives to its extensions' scripts.

const opts = {};
const _callbacks = {update: [], afterUpdate: [], loaded: [], tabChange: []};

function gradioApp() {
    return document.querySelector("gradio-app") || document;
}

function onUiUpdate(callback) {
    _callbacks.update.push(callback);
}

function onAfterUiUpdate(callback) {
    _callbacks.afterUpdate.push(callback);
}

function onUiLoaded(callback) {
    _callbacks.loaded.push(callback);
}

function onUiTabChange(callback) {
    _callbacks.tabChange.push(callback);
}

function onOptionsChanged() {}

function get_uiCurrentTab() {
    return document.querySelector("#tabs > .tab-nav > button.selected");
}

function get_uiCurrentTabContent() {
    return [...document.querySelectorAll("#tabs > .tabitem")].find((tab) => tab.style.display !== "none");
}

/** Tell Gradio of a value that a script has put into an input. */
function updateInput(target) {
    target.dispatchEvent(new Event("input", {bubbles: true}));
}

/** Called when Python has changed an accordion's hidden checkbox. */
function inputAccordionChecked(id, checked) {
    document.getElementById(id)?.check?.(checked);
}

/** A visible checkbox in the accordion's label: it follows the accordion, until it is clicked itself. */
function linkAccordion(accordion) {
    const label = accordion.querySelector(".label-wrap");
    const hidden = document.querySelector(`#${accordion.id}-checkbox input`);
    const box = document.createElement("input");
    const isOpen = () => label.classList.contains("open");
    let follows = true;

    box.type = "checkbox";
    box.id = `${accordion.id}-visible-checkbox`;
    box.className = `${hidden.className} input-accordion-checkbox`;
    box.checked = isOpen();
    label.querySelector("span").prepend(box);

    accordion.check = (checked) => {
        box.checked = checked;
        if (follows && isOpen() !== checked) label.click();
        if (hidden.checked !== checked) {
            hidden.checked = checked;
            updateInput(hidden);
        }
    };
    box.addEventListener("click", (event) => {
        follows = false;
        event.stopPropagation();
    });
    box.addEventListener("input", () => accordion.check(box.checked));
    new MutationObserver(() => {
        accordion.classList.toggle("input-accordion-open", isOpen());
        if (follows) accordion.check(isOpen());
    }).observe(label, {attributes: true, attributeFilter: ["class"]});
}

onUiLoaded(() => document.querySelectorAll(".input-accordion").forEach(linkAccordion));

document.addEventListener("DOMContentLoaded", () => {
    let isLoaded = false;
    let soon = null;
    let currentTab = null;
    const run = (callbacks, ...args) => callbacks.forEach((callback) => callback(...args));
    new MutationObserver((mutations) => {
        if (!isLoaded && document.querySelector("#txt2img_prompt")) {
            isLoaded = true;
            run(_callbacks.loaded);
        }
        run(_callbacks.update, mutations);
        clearTimeout(soon);
        soon = setTimeout(() => run(_callbacks.afterUpdate), 200);
        const tab = get_uiCurrentTab();
        if (tab && tab !== currentTab) {
            currentTab = tab;
            run(_callbacks.tabChange);
        }
    }).observe(gradioApp(), {childList: true, subtree: true});
});
