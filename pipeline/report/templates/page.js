"use strict";
// Opens the pictures of a confusion, and draws the map. All data is in the page; nothing is loaded.
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const n = data.path.length;
  const mostShown = 60;

  /** A picture of image i, `side` pixels wide, or a plain square where it has none. */
  const sprite = (i, side) => {
    const span = document.createElement("span");
    const place = data.place[i];
    span.className = place < 0 ? "sprite none" : "sprite";
    span.style.width = span.style.height = `${side}px`;
    span.setAttribute("role", "img");
    span.setAttribute("aria-label", place < 0 ? `${data.path[i]}, no picture` : data.path[i]);
    if (place >= 0) {
      const inSheet = place % data.perSheet;
      const x = inSheet % data.columns, y = Math.floor(inSheet / data.columns);
      span.style.backgroundImage = `url(${data.sheets[Math.floor(place / data.perSheet)]})`;
      span.style.backgroundSize = `${data.columns * side}px auto`;
      span.style.backgroundPosition = `${-x * side}px ${-y * side}px`;
    }
    return span;
  };

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text !== undefined) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  const describe = (i) => {
    const parts = [data.path[i], `${data.label[i] || "no label"}, ${data.split[i]}`];
    if (data.set[i] >= 0) {
      const p = data.p[i] === null ? "" : ` (${data.p[i].toFixed(2)})`;
      parts.push(`${data.wrong[i] ? "mistaken for" : "guessed"} ${data.guess[i]}${p}`);
    }
    return parts;
  };

  // Confusions
  const panel = document.getElementById("cell-panel");
  for (const button of panel ? document.querySelectorAll("button[data-set]") : []) {
    button.addEventListener("click", () => {
      const { set, truth, guess } = button.dataset;
      for (const other of document.querySelectorAll("button[data-set]")) other.setAttribute("aria-pressed", other === button);
      const found = [];
      for (let i = 0; i < n; i++) {
        if (data.set[i] === +set && data.truthClass[i] === +truth && data.guessClass[i] === +guess) found.push(i);
      }
      found.sort((a, b) => data.p[b] - data.p[a]);
      const list = element("ul", undefined, "tiles-list");
      for (const i of found.slice(0, mostShown)) {
        const item = element("li");
        item.append(sprite(i, 96), element("div", data.path[i]), element("div", `p ${data.p[i].toFixed(2)}`, "muted"));
        list.append(item);
      }
      const shown = Math.min(found.length, mostShown);
      const all = button.textContent.trim();
      const title = button.getAttribute("aria-label").split(": show")[0];
      const some = `${shown.toLocaleString("en")} of ${all} are shown, the most certain first.`;
      panel.replaceChildren(element("h3", title), element("p", some, "muted small"), list);
      panel.hidden = false;
      panel.focus({ preventScroll: true });
      panel.scrollIntoView({ block: "nearest" });
    });
  }

  // Map
  const canvas = document.getElementById("map-canvas");
  if (!canvas) return;
  const tip = document.getElementById("map-tip"), said = document.getElementById("map-said");
  const kind = document.getElementById("map-kind"), colour = document.getElementById("map-colour");
  const legend = document.getElementById("map-legend");
  const margin = 14, names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
  let xs = [], ys = [], chosen = -1;

  const variable = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

  const mix = (a, b, share) => {
    const parts = (hex) => [1, 3, 5].map((at) => parseInt(hex.slice(at, at + 2), 16));
    const [from, to] = [parts(a), parts(b)];
    return `rgb(${from.map((part, i) => Math.round(part + (to[i] - part) * share)).join(",")})`;
  };

  const draw = () => {
    const { width, height } = canvas.getBoundingClientRect();
    const ratio = window.devicePixelRatio || 1;
    canvas.width = Math.round(width * ratio);
    canvas.height = Math.round(height * ratio);
    const to = canvas.getContext("2d");
    to.scale(ratio, ratio);
    const [px, py] = data.maps[kind.value];
    const side = Math.min(width, height) - 2 * margin;
    const stretch = Math.min(width / height, 1.5);
    xs = px.map((x) => width / 2 + ((x - 500) / 1000) * side * (width > height ? stretch : 1));
    ys = py.map((y) => height / 2 + ((500 - y) / 1000) * side);
    const by = data.colourings[+colour.value];
    const palette = names.map(variable), far = variable("far");
    const faint = by.names ? by.names.indexOf("not judged") : -1;
    const rare = by.names ? by.names.indexOf("mistake") : -1;
    const order = [...Array(n).keys()].sort((a, b) => (by.values[a] === rare) - (by.values[b] === rare));
    const paint = (i) => {
      const value = by.values[i];
      if (by.names) return value === faint ? far : palette[value % palette.length];
      return value === null ? far : mix(palette[0], palette[1], value);
    };
    const radius = n > 1500 ? 2.6 : n > 400 ? 3.2 : 4.2;
    to.globalAlpha = 0.8;
    for (const i of order) {
      to.fillStyle = paint(i);
      to.beginPath();
      to.arc(xs[i], ys[i], radius, 0, 7);
      to.fill();
    }
    to.globalAlpha = 1;
    if (chosen >= 0) {
      to.strokeStyle = variable("text");
      to.lineWidth = 2;
      to.beginPath();
      to.arc(xs[chosen], ys[chosen], radius + 4, 0, 7);
      to.stroke();
    }
    const swatch = (text, className, fill) => {
      const item = element("li"), mark = element("span", undefined, `swatch ${className}`);
      if (fill) mark.style.background = fill;
      item.append(mark, text);
      return item;
    };
    const items = by.names
      ? by.names.map((name, i) => swatch(`${name} (${by.counts[i].toLocaleString("en")})`, i === faint ? "far" : names[i % 8]))
      : [swatch(by.low, "c0"), swatch(by.high, "c1"), swatch("not known", "far")];
    legend.replaceChildren(...items);
  };

  const choose = (i) => {
    if (i === chosen) return;
    chosen = i;
    draw();
    tip.hidden = i < 0;
    said.textContent = i < 0 ? "No image is chosen." : describe(i).join("; ");
    if (i < 0) return;
    tip.replaceChildren(sprite(i, 144), ...describe(i).map((part, at) => element("div", part, at === 0 ? "path" : "")));
    const box = canvas.getBoundingClientRect();
    const left = xs[i] + 16 + 180 > box.width ? xs[i] - 196 : xs[i] + 16;
    tip.style.left = `${Math.max(0, Math.min(left, box.width - 180))}px`;
    tip.style.top = `${Math.max(0, Math.min(ys[i] - 40, box.height - tip.offsetHeight))}px`;
  };

  const nearest = (x, y, most) => {
    let found = -1, least = most * most;
    for (let i = 0; i < n; i++) {
      const apart = (xs[i] - x) ** 2 + (ys[i] - y) ** 2;
      if (apart < least) [found, least] = [i, apart];
    }
    return found;
  };

  /** The nearest image in a direction, within a quarter turn of it. */
  const step = (dx, dy) => {
    if (chosen < 0) return nearest(canvas.clientWidth / 2, canvas.clientHeight / 2, Infinity);
    let found = chosen, least = Infinity;
    for (let i = 0; i < n; i++) {
      const x = xs[i] - xs[chosen], y = ys[i] - ys[chosen];
      const along = x * dx + y * dy, across = Math.abs(x * dy - y * dx);
      if (along > 0.5 && along >= across && along + across < least) [found, least] = [i, along + across];
    }
    return found;
  };

  const at = (event, most) => {
    const box = canvas.getBoundingClientRect();
    choose(nearest(event.clientX - box.left, event.clientY - box.top, most));
  };
  canvas.addEventListener("pointermove", (event) => { if (event.pointerType === "mouse") at(event, 14); });
  canvas.addEventListener("click", (event) => at(event, 28));
  canvas.addEventListener("pointerleave", (event) => { if (event.pointerType === "mouse") choose(-1); });
  canvas.addEventListener("keydown", (event) => {
    const ways = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };
    if (event.key === "Escape") choose(-1);
    if (!(event.key in ways)) return;
    event.preventDefault();
    choose(step(...ways[event.key]));
  });
  const again = () => { chosen = -1; tip.hidden = true; draw(); };
  kind.addEventListener("change", again);
  colour.addEventListener("change", again);
  new ResizeObserver(draw).observe(canvas);
  window.matchMedia("(prefers-color-scheme: dark)").addEventListener("change", draw);
  window.addEventListener("beforeprint", draw);
  draw();
})();
