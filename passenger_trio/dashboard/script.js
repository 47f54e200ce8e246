"use strict";
// The server sends the whole changing part; what the reader has opened, focused or scrolled to stays as it is.
const live = document.getElementById("live");
let lost = null;
function show(html) {
  const open = new Set([...live.querySelectorAll("details[open]")].map((one) => one.id));
  const at = document.activeElement;
  const focused = at && live.contains(at) ? [...live.querySelectorAll("a,button,summary,pre")].indexOf(at) : -1;
  live.innerHTML = html;
  for (const one of live.querySelectorAll("details")) one.open = open.has(one.id);
  if (focused >= 0) {
    const next = live.querySelectorAll("a,button,summary,pre")[focused];
    if (next) next.focus({ preventScroll: true });
  }
}
function say(text) {
  if (!lost) {
    lost = document.createElement("p");
    lost.className = "lost";
    lost.setAttribute("role", "status");
    document.body.append(lost);
  }
  lost.textContent = text;
}
const source = new EventSource("live");
source.onmessage = (event) => {
  if (lost) lost.remove();
  lost = null;
  if (!live.querySelector("form:active") && !String(getSelection())) show(JSON.parse(event.data));
};
source.addEventListener("trouble", (event) => say(JSON.parse(event.data)));
source.onerror = () => say("No connection to the dashboard: what is shown is old.");
