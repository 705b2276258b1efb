// One image enlarged, without and with its heatmap.

class LargeView {
  constructor(data, images) {
    this.data = data;
    this.images = images;
    this.dialog = document.getElementById("large");
    document.getElementById("large-close").addEventListener("click", () => this.dialog.close());
  }

  get open() {
    return this.dialog.open;
  }

  show(index, letter, selects) {
    const { data } = this;
    document.getElementById("large-name").textContent = visible(data.path[index]);
    this.fill("large-plain", index);
    this.fill("large-heat", index);
    document.getElementById("large-with").hidden = !data.maps || !data.bytes[index];
    const list = document.getElementById("large-details");
    list.replaceChildren();
    const probability = data.probability[index];
    for (const [name, value] of [
      ["decision", WORD[letter]],
      ["rank", `${index + 1} of ${data.path.length}`],
      ["score", formatNumber(data.score[index])],
      ["contamination probability", probability === null ? "unknown" : `${Math.round(100 * probability)}%`],
      ["selection", selects ? (data.selected[index] ? "selected" : "not selected") : null],
      ["threshold", selects ? formatNumber(data.thresholds[data.category[index]]) : null],
      ["memory score", data.memory[index] === null ? null : formatNumber(data.memory[index])],
      ["distilled score", data.distilled[index] === null ? null : formatNumber(data.distilled[index])],
      ["category", visible(data.categories[data.category[index]])],
    ]) {
      if (value === null) continue;
      const pair = make("div");
      pair.append(make("dt", "", name), make("dd", "", value));
      list.append(pair);
    }
    if (this.open) return;
    this.dialog.showModal();
    this.dialog.focus();
  }

  fill(id, index) {
    const place = document.getElementById(id), { data } = this;
    const frame = imageFrame(data, this.images, index);
    if (id === "large-heat") addHeat(frame, this.images, index);
    place.replaceChildren(...(frame ? [...frame.childNodes] : [make("div", "gone", "image cannot be read")]));
    place.style.aspectRatio = frame ? `${data.width[index]} / ${data.height[index]}` : "1";
  }
}
