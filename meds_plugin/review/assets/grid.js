// The grid of tiles: only rows near the visible ones are in the document.

const GAP = 10, RULE = 40, FOOT = 44, SPARE = 3;
const ACTS = matchMedia("(hover: none)").matches ? 42 : 30; // fingers need more room

class Grid {
  constructor(data, images, decisions, onChange) {
    this.data = data;
    this.images = images;
    this.decisions = decisions;
    this.scroll = document.getElementById("scroll");
    this.element = document.getElementById("grid");
    this.rows = new Map();
    this.indices = [];
    this.line = null;
    this.current = 0; // place among the images shown
    this.tile = 144;
    this.onChange = onChange;
    this.heated = false; // whether all tiles show their heatmap
    this.element.addEventListener("pointerover", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) this.heat(tile);
    });
    this.scroll.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(this.scroll);
  }

  show(indices, line) {
    this.indices = indices;
    this.line = line;
    this.current = Math.max(0, Math.min(this.current, indices.length - 1));
    this.measure();
  }

  measure() {
    const width = this.element.clientWidth;
    this.columns = Math.max(1, Math.floor((width + GAP) / (this.tile + GAP)));
    // Tiles stretch to fill the row.
    const size = Math.floor((width - GAP * (this.columns - 1)) / this.columns);
    this.size = this.indices.length >= this.columns ? size : Math.min(size, this.tile * 1.5);
    this.pitch = this.size + FOOT + ACTS + GAP;
    const count = this.indices.length;
    this.split = this.line ? Math.ceil(this.line.at / this.columns) : Math.ceil(count / this.columns);
    const after = this.line ? Math.ceil((count - this.line.at) / this.columns) : 0;
    this.count = this.split + after;
    this.element.style.height = `${this.count * this.pitch + (this.line ? RULE : 0) + GAP}px`;
    this.element.style.setProperty("--tile", `${this.size}px`);
    this.element.style.setProperty("--acts", `${ACTS}px`);
    this.element.setAttribute("aria-rowcount", this.count + (this.line ? 1 : 0));
    this.element.setAttribute("aria-colcount", this.columns);
    this.redraw();
  }

  redraw() {
    for (const row of this.rows.values()) row.remove();
    this.rows.clear();
    this.draw();
  }

  // Returns the places [from, to) in a row.
  places(row) {
    if (row < this.split) {
      const end = this.line ? this.line.at : this.indices.length;
      return [row * this.columns, Math.min(end, (row + 1) * this.columns)];
    }
    const from = this.line.at + (row - this.split) * this.columns;
    return [from, Math.min(this.indices.length, from + this.columns)];
  }

  rowOf(place) {
    if (!this.line || place < this.line.at) return Math.floor(place / this.columns);
    return this.split + Math.floor((place - this.line.at) / this.columns);
  }

  top(row) {
    return GAP + row * this.pitch + (this.line && row >= this.split ? RULE : 0);
  }

  draw() {
    const from = this.scroll.scrollTop, to = from + this.scroll.clientHeight;
    const first = Math.max(0, Math.floor((from - RULE) / this.pitch) - SPARE);
    const last = Math.min(this.count - 1, Math.ceil(to / this.pitch) + SPARE);
    const wanted = new Set();
    for (let row = first; row <= last; row += 1) wanted.add(row);
    // The current image stays in the document, so that the focus is not lost.
    if (this.indices.length) wanted.add(this.rowOf(this.current));
    if (this.line && first <= this.split && this.split <= last + 1) wanted.add("rule");
    for (const [row, element] of this.rows) {
      if (!wanted.has(row)) {
        element.remove();
        this.rows.delete(row);
      }
    }
    for (const row of wanted) {
      if (this.rows.has(row)) continue;
      const element = row === "rule" ? this.rule() : this.row(row);
      this.rows.set(row, element);
      this.element.append(element);
    }
  }

  rule() {
    const rule = make("div", "rule");
    rule.setAttribute("role", "row");
    rule.setAttribute("aria-rowindex", this.split + 1);
    const cell = make("span", "", this.line.text);
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-colspan", this.columns);
    rule.append(cell);
    rule.style.top = `${GAP / 2 + this.split * this.pitch}px`;
    return rule;
  }

  row(number) {
    const row = make("div", "row");
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", number + 1 + (this.line && number >= this.split ? 1 : 0));
    row.style.top = `${this.top(number)}px`;
    const [from, to] = this.places(number);
    for (let place = from; place < to; place += 1) row.append(this.cell(place, place - from));
    return row;
  }

  cell(place, column) {
    const { data } = this, index = this.indices[place];
    const tile = make("div", "tile");
    tile.setAttribute("role", "gridcell");
    tile.setAttribute("aria-colindex", column + 1);
    tile.dataset.place = place;
    const square = make("div", "square");
    const frame = imageFrame(data, this.images, index);
    square.append(frame ?? make("div", "gone", "image cannot be read"), make("span", "mark"));
    if (this.heated) addHeat(frame, this.images, index);
    const acts = make("div", "acts");
    for (const [letter, name, sign] of [[KEEP, "keep", "\u2713"], [DROP, "drop", "\u2715"]]) {
      const button = make("button", name, `${sign} ${name}`);
      button.type = "button";
      button.tabIndex = -1;
      button.dataset.letter = letter;
      acts.append(button);
    }
    const foot = make("div", "foot"), one = make("div"), two = make("div");
    one.append(make("span", "soft rank", `#${index + 1}`));
    const probability = data.probability[index];
    const percent = probability === null ? "" : ` \u00b7 ${Math.round(100 * probability)}%`;
    one.append(make("b", "", formatNumber(data.score[index], 3) + percent));
    two.append(make("span", "soft", visible(data.categories[data.category[index]])));
    if (this.selects) two.append(data.selected[index] ? make("span", "state", "selected") : make("span", "state unselected", "not selected"));
    foot.append(one, two);
    tile.append(square, foot, acts);
    tile.title = visible(data.path[index]);
    this.mark(tile, place);
    return tile;
  }

  // Updates a tile to its decision and the current place.
  mark(tile, place) {
    const { data } = this, index = this.indices[place], letter = this.decisions.letters[index];
    tile.classList.toggle("drop", letter === DROP);
    tile.classList.toggle("keep", letter === KEEP);
    tile.classList.toggle("unselected", this.selects && !data.selected[index]);
    tile.classList.toggle("current", place === this.current);
    tile.tabIndex = place === this.current ? 0 : -1;
    tile.setAttribute("aria-selected", place === this.current);
    for (const button of tile.querySelectorAll(".acts button")) {
      button.setAttribute("aria-pressed", button.dataset.letter === letter);
    }
    const mark = { [DROP]: "\u2715 drop", [KEEP]: "\u2713 keep", [UNDECIDED]: "" }[letter];
    tile.querySelector(".mark").textContent = mark;
    tile.setAttribute("aria-label", describe(data, index, letter, this.selects));
  }

  heat(tile) {
    addHeat(tile.querySelector(".pic"), this.images, this.indices[+tile.dataset.place]);
  }

  heatAll(on) {
    this.heated = on;
    if (on) for (const tile of this.element.querySelectorAll(".tile")) this.heat(tile);
  }

  tileAt(place) {
    return this.element.querySelector(`.tile[data-place="${place}"]`);
  }

  refresh() {
    for (const tile of this.element.querySelectorAll(".tile")) this.mark(tile, +tile.dataset.place);
  }

  // Makes a place the current one and scrolls to it.
  go(place, { focus = true } = {}) {
    if (!this.indices.length) return;
    this.current = Math.max(0, Math.min(place, this.indices.length - 1));
    const row = this.rowOf(this.current), top = this.top(row);
    const room = this.line && row === this.split ? RULE : 0;
    if (top - room - GAP < this.scroll.scrollTop) this.scroll.scrollTop = top - room - GAP;
    const bottom = top + this.pitch - this.scroll.clientHeight;
    if (bottom > this.scroll.scrollTop) this.scroll.scrollTop = bottom;
    this.draw();
    this.refresh();
    if (focus) this.tileAt(this.current)?.focus({ preventScroll: true });
    this.onChange();
  }

  // Moves by rows, in the same column where possible.
  step(rows) {
    const row = this.rowOf(this.current), column = this.current - this.places(row)[0];
    const target = Math.max(0, Math.min(this.count - 1, row + rows));
    const [from, to] = this.places(target);
    if (target !== row) this.go(Math.min(from + column, to - 1));
  }
}

function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

// Returns the image fitted into a square, or null if it cannot be read.
function imageFrame(data, images, index) {
  const address = images.thumbnail(index);
  if (address === "") return null;
  const pic = make("div", "pic"), longer = Math.max(data.width[index], data.height[index]);
  pic.style.width = `${(100 * data.width[index]) / longer}%`;
  pic.style.height = `${(100 * data.height[index]) / longer}%`;
  if (address === null) {
    pic.dataset.waits = "";
    return pic;
  }
  const image = make("img");
  image.alt = "";
  image.decoding = "sync";
  image.draggable = false;
  image.src = address;
  pic.append(image);
  return pic;
}

// Lays the heatmap over an image unless it is there.
function addHeat(pic, images, index) {
  if (!pic?.firstChild || pic.querySelector("canvas")) return;
  const heat = images.heatmap(index);
  if (heat) pic.append(heat);
}

function describe(data, index, letter, selects) {
  const parts = [
    `rank ${index + 1}`,
    `score ${formatNumber(data.score[index])}`,
    data.categories[data.category[index]],
    visible(data.path[index]),
    { [DROP]: "dropped", [KEEP]: "kept", [UNDECIDED]: "undecided" }[letter],
  ];
  if (selects) parts.push(data.selected[index] ? "selected" : "not selected");
  if (!data.bytes[index]) parts.push("image cannot be read");
  return parts.join(", ");
}
