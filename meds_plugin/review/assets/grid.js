// The grid of tiles: only rows near the visible ones are in the document.

const SPARE = 3; // rows beyond the view
const AHEAD = 2; // views whose images are loaded before they are scrolled to
const HIGHEST = 15e6; // pixels; browsers cannot lay out much more
const ACTS = matchMedia("(hover: none), (pointer: coarse)").matches ? 45 : 30; // fingers need more room

class Grid {
  constructor(data, images, decisions, onChange) {
    this.data = data;
    this.images = images;
    this.decisions = decisions;
    this.scroll = document.getElementById("scroll");
    this.element = document.getElementById("grid");
    this.lines = new Map(); // elements of rows by number, of headings by "h" and number
    this.indices = [];
    this.breaks = [];
    this.current = 0; // place among the images shown
    this.tile = 144;
    this.foot = hasChips(data) ? 64 : 44;
    this.onChange = onChange;
    this.heated = false; // whether all tiles show their heatmap
    this.was = 0; // where the view was when tiles were drawn
    this.element.addEventListener("pointerover", (event) => {
      const tile = event.target.closest(".tile");
      if (tile) this.heat(tile);
    });
    this.scroll.addEventListener("scroll", () => this.draw(), { passive: true });
    new ResizeObserver(() => this.measure()).observe(this.scroll);
  }

  show(indices, breaks) {
    this.indices = indices;
    this.breaks = breaks;
    this.current = Math.max(0, Math.min(this.current, indices.length - 1));
    this.measure();
  }

  measure() {
    const width = this.element.clientWidth, count = this.indices.length;
    let columns = Math.max(1, Math.floor((width + GAP) / (this.tile + GAP)));
    for (;; columns += 1) {
      // Tiles stretch to fill the row.
      const size = Math.floor((width - GAP * (columns - 1)) / columns);
      this.size = count >= columns ? size : Math.min(size, this.tile * 1.5);
      this.pitch = this.size + this.foot + ACTS + GAP;
      if (columns >= count || (count / columns) * this.pitch < HIGHEST) break;
    }
    this.sections = new Sections(count, columns, this.pitch, this.breaks);
    this.element.style.height = `${this.sections.height + GAP}px`;
    this.element.style.setProperty("--tile", `${this.size}px`);
    this.element.style.setProperty("--acts", `${ACTS}px`);
    this.element.style.setProperty("--foot", `${this.foot}px`);
    this.element.setAttribute("aria-rowcount", this.sections.lines);
    this.element.setAttribute("aria-colcount", columns);
    this.redraw();
  }

  redraw() {
    for (const line of this.lines.values()) line.remove();
    this.lines.clear();
    this.draw();
  }

  draw() {
    if (!this.sections) return;
    const from = this.scroll.scrollTop, view = this.scroll.clientHeight, spare = SPARE * this.pitch;
    const { rows, headings } = this.sections.between(from - spare, from + view + spare);
    const wanted = new Set([...rows, ...headings.map((number) => `h${number}`)]);
    // The current image stays in the document, so that the focus is not lost.
    if (this.indices.length) wanted.add(this.sections.rowOf(this.current));
    this.load(from, from + view, Math.max(view, spare));
    for (const [key, element] of this.lines) {
      if (!wanted.has(key)) {
        element.remove();
        this.lines.delete(key);
      }
    }
    for (const key of wanted) {
      if (this.lines.has(key)) continue;
      const element = typeof key === "string" ? this.heading(this.sections.all[+key.slice(1)]) : this.row(key);
      this.lines.set(key, element);
      this.element.append(element);
    }
  }

  // Has the images in view loaded, then those that the view moves towards, then those behind.
  load(from, to, step) {
    const down = from >= this.was, [above, below] = down ? [1, AHEAD] : [AHEAD, 1];
    this.was = from;
    const before = [from - above * step, from], after = [to, to + below * step];
    const ranges = [[from, to], ...(down ? [after, before] : [before, after])];
    const indices = ranges.flatMap(([start, end]) =>
      this.sections.between(start, end).rows.flatMap((row) => this.indices.slice(...this.sections.places(row))));
    this.images.want(indices);
  }

  // Fills tiles whose images have been loaded.
  fill() {
    for (const pic of this.element.querySelectorAll("[data-waits]")) {
      const tile = pic.closest(".tile"), frame = imageFrame(this.data, this.images, +pic.dataset.waits);
      if ("waits" in frame.dataset) continue;
      pic.replaceWith(frame);
      if (this.heated || tile.matches(":hover")) this.heat(tile);
    }
  }

  heading({ text, top, line }) {
    const heading = make("div", "rule");
    heading.setAttribute("role", "row");
    heading.setAttribute("aria-rowindex", line);
    const cell = make("span", "", text);
    cell.setAttribute("role", "gridcell");
    cell.setAttribute("aria-colspan", this.sections.columns);
    heading.append(cell);
    heading.style.top = `${top - GAP / 2}px`;
    return heading;
  }

  row(number) {
    const row = make("div", "row");
    row.setAttribute("role", "row");
    row.setAttribute("aria-rowindex", this.sections.lineOf(number) + 1);
    row.style.top = `${this.sections.topOf(number)}px`;
    const [from, to] = this.sections.places(number);
    for (let place = from; place < to; place += 1) row.append(this.cell(place, place - from));
    return row;
  }

  cell(place, column) {
    const tile = makeTile(this.data, this.images, this.indices[place], this.selects);
    tile.setAttribute("role", "gridcell");
    tile.setAttribute("aria-colindex", column + 1);
    tile.dataset.place = place;
    if (this.heated) this.heat(tile);
    this.mark(tile, place);
    return tile;
  }

  // Updates a tile to its decision and the current place.
  mark(tile, place) {
    markTile(tile, this.data, this.decisions, this.indices[place], this.selects);
    tile.classList.toggle("current", place === this.current);
    tile.tabIndex = place === this.current ? 0 : -1;
    tile.setAttribute("aria-selected", place === this.current);
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
    const row = this.sections.rowOf(this.current), top = this.sections.topOf(row);
    const section = this.sections.sectionOf(row), room = row === section.row ? top - section.top : 0;
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
    const row = this.sections.rowOf(this.current), column = this.current - this.sections.places(row)[0];
    const target = Math.max(0, Math.min(this.sections.rows - 1, row + rows));
    const [from, to] = this.sections.places(target);
    if (target !== row) this.go(Math.min(from + column, to - 1));
  }
}
