// One image enlarged: alone, with its heatmap, and beside the nearest normal image.

const SWIPE = 60; // pixels

class LargeView {
  constructor(data, images, decisions) {
    this.data = data;
    this.images = images;
    this.decisions = decisions;
    this.comparing = false;
    this.dialog = document.getElementById("large");
    document.getElementById("large-close").addEventListener("click", () => this.dialog.close());
    document.getElementById("large-compare").hidden = !data.nearest;
  }

  get open() {
    return this.dialog.open;
  }

  show(index, selects) {
    const { data } = this;
    this.index = index;
    this.selects = selects;
    const nearest = this.comparing ? data.nearest[index] : null;
    document.getElementById("large-name").textContent = visible(data.path[index]);
    document.getElementById("large-compare").setAttribute("aria-pressed", this.comparing);
    document.getElementById("large-with").hidden = !data.maps || !data.bytes[index];
    document.getElementById("large-other").hidden = !this.comparing;
    this.dialog.classList.toggle("comparing", this.comparing);
    // All at one scale: the widest and the highest fill the frame.
    const shown = nearest === null ? [index] : [index, nearest];
    const side = (key) => Math.max(...shown.map((each) => data[key][each])) || 1;
    const frame = { width: side("width"), height: side("height") };
    this.fill("large-plain", index, frame, false);
    this.fill("large-heat", index, frame, true);
    if (this.comparing) this.fill("large-nearest", nearest, frame, false);
    document.getElementById("large-nearest-name").textContent = nearest === null
      ? "this category has no other normal image"
      : `nearest normal image: ${visible(data.path[nearest])}, rank ${nearest + 1}, score ${formatNumber(data.score[nearest])}`;
    this.images.want(shown, { instead: false });
    this.details(index);
    if (this.open) return;
    this.dialog.showModal();
    this.dialog.focus();
  }

  // Shows again what has been loaded since.
  fillWaiting() {
    if (this.open && this.dialog.querySelector("[data-waits]")) this.show(this.index, this.selects);
  }

  details(index) {
    const { data, decisions } = this, letter = decisions.letters[index], other = decisions.others[index];
    for (const [id, each] of [["large-keep", KEEP], ["large-drop", DROP]]) {
      document.getElementById(id).setAttribute("aria-pressed", letter === each);
    }
    const list = document.getElementById("large-details");
    list.replaceChildren();
    const probability = data.probability?.[index] ?? null;
    for (const [name, value] of [
      ["decision", WORD[letter] + (other === UNDECIDED ? "" : `, the other reviewer's: ${WORD[other]}`)],
      ["rank", `${index + 1} of ${data.path.length}`],
      ["score", formatNumber(data.score[index])],
      ["contamination probability", probability === null ? "unknown" : `${Math.round(100 * probability)}%`],
      ["selection", this.selects ? (data.selected[index] ? "selected" : "not selected") : null],
      ["threshold", this.selects ? formatNumber(data.thresholds[data.category[index]]) : null],
      ["memory score", data.memory && formatNumber(data.memory[index])],
      ["distilled score", data.distilled && formatNumber(data.distilled[index])],
      ["category", visible(data.categories[data.category[index]])],
      ["notes", chipWords(data, index).join(", ") || null],
    ]) {
      if (value === null) continue;
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", "", value));
      list.append(pair);
    }
  }

  fill(id, index, frame, heated) {
    const place = document.getElementById(id), { data } = this;
    place.style.aspectRatio = `${frame.width} / ${frame.height}`;
    const pic = index === null ? make("div", "gone", "none") : imageFrame(data, this.images, index);
    place.replaceChildren(pic);
    if (!pic.matches(".pic")) return;
    if (heated) addHeat(pic, this.images, index);
    pic.style.width = `${(100 * data.width[index]) / frame.width}%`;
    pic.style.height = `${(100 * data.height[index]) / frame.height}%`;
  }
}

// Calls with 1 or -1 when a finger moves to the left or to the right.
function onSwipe(element, act) {
  let start = null;
  element.addEventListener("touchstart", (event) => {
    start = event.touches.length === 1 ? event.touches[0] : null;
  }, { passive: true });
  element.addEventListener("touchend", (event) => {
    const end = event.changedTouches[0];
    if (!start) return;
    const x = end.clientX - start.clientX, y = end.clientY - start.clientY;
    start = null;
    if (Math.abs(x) > SWIPE && Math.abs(x) > 2 * Math.abs(y)) act(x < 0 ? 1 : -1);
  }, { passive: true });
}
