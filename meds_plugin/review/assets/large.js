// One image large, beside itself with its heatmap.

class Large {
  constructor(facts, pictures) {
    this.facts = facts;
    this.pictures = pictures;
    this.dialog = document.getElementById("large");
    document.getElementById("large-close").addEventListener("click", () => this.dialog.close());
  }

  get open() {
    return this.dialog.open;
  }

  show(index, letter, selects) {
    const { facts } = this;
    document.getElementById("large-name").textContent = visible(facts.path[index]);
    this.fill("large-plain", index);
    this.fill("large-heat", index);
    document.getElementById("large-with").hidden = !facts.maps || !facts.bytes[index];
    const list = document.getElementById("large-facts");
    list.replaceChildren();
    const decision = { [DROP]: "drop", [KEEP]: "keep", [UNDECIDED]: "undecided" }[letter];
    const chance = facts.probability[index];
    for (const [name, value] of [
      ["decision", decision],
      ["rank", `${index + 1} of ${facts.path.length}`],
      ["score", figure(facts.score[index])],
      ["probability of a defect", chance === null ? "unknown" : `${Math.round(100 * chance)} %`],
      ["selection", selects ? (facts.selected[index] ? "trained on" : "left out") : null],
      ["threshold", selects ? figure(facts.thresholds[facts.category[index]]) : null],
      ["memory", facts.memory[index] === null ? null : figure(facts.memory[index])],
      ["distilled", facts.distilled[index] === null ? null : figure(facts.distilled[index])],
      ["category", visible(facts.categories[facts.category[index]])],
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
    const place = document.getElementById(id), { facts } = this;
    const drawn = picture(facts, this.pictures, index);
    if (id === "large-heat") addHeat(drawn, this.pictures, index);
    place.replaceChildren(...(drawn ? [...drawn.childNodes] : [make("div", "gone", "image cannot be read")]));
    place.style.aspectRatio = drawn ? `${facts.width[index]} / ${facts.height[index]}` : "1";
  }
}
