// The few lines of DOM that the page needs. What users and workers send only
// ever becomes text: nothing here takes markup, and the page's policy forbids it.

export const byId = (id) => document.getElementById(id);

/** An element with properties (or, where there is none, attributes) and children. */
export function el(tag, props = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(props)) {
    if (name in node) node[name] = value;
    else node.setAttribute(name, value);
  }
  node.append(...children);
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

/** One of the symbols that index.html defines. */
export function icon(name) {
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true");
  svg.setAttribute("class", "icon");
  const use = document.createElementNS(SVG, "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** Sets text only when it differs, so that screen readers hear changes and nothing else. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Calls draw at most once a frame, however often it is asked to. */
export function perFrame(draw) {
  let asked = false;
  return () => {
    if (asked) return;
    asked = true;
    requestAnimationFrame(() => {
      asked = false;
      draw();
    });
  };
}

const sounds = byId("announce");

/** Says something to people who listen to the page instead of looking at it. */
export function announce(text) {
  sounds.append(el("p", {}, text));
  while (sounds.childElementCount > 3) sounds.firstElementChild.remove();
}

export const number = new Intl.NumberFormat("en");

export function milliseconds(ms) {
  if (ms < 10) return `${ms.toFixed(1)} ms`;
  if (ms < 1000) return `${Math.round(ms)} ms`;
  return `${(ms / 1000).toFixed(1)} s`;
}
