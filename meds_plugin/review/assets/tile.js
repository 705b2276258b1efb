// Builds the elements of one tile.

function make(name, className = "", text = "") {
  const element = document.createElement(name);
  if (className) element.className = className;
  if (text) element.textContent = text;
  return element;
}

// Returns the image fitted into a square.
function imageFrame(data, images, index) {
  const address = images.thumbnail(index);
  if (address === "") return make("div", "gone", "image cannot be read");
  const pic = make("div", "pic"), longer = Math.max(data.width[index], data.height[index]);
  pic.style.width = `${(100 * data.width[index]) / longer}%`;
  pic.style.height = `${(100 * data.height[index]) / longer}%`;
  if (address === null) {
    pic.dataset.waits = index;
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
  if (!pic?.querySelector("img") || pic.querySelector("canvas")) return;
  const heat = images.heatmap(index);
  if (heat) pic.append(heat);
}

// Returns the file's issues and its groups, as words for a person.
function chipWords(data, index) {
  const duplicates = data.duplicates?.[index], defects = data.defects?.[index];
  const words = issuesOf(data, index).filter((name) => name !== "near-duplicate" || !duplicates);
  if (duplicates) words.push(`near-duplicate ${duplicates}`);
  if (defects) words.push(`similar defects ${defects}`);
  return words.map(visible);
}

function makeTile(data, images, index, selects) {
  // The foot is for the eye; what is heard is one sentence and the buttons.
  const tile = make("div", "tile"), square = make("div", "square");
  square.append(imageFrame(data, images, index), make("span", "mark"));
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
  const probability = data.probability?.[index] ?? null;
  const percent = probability === null ? "" : ` \u00b7 ${Math.round(100 * probability)}%`;
  one.append(make("b", "", formatNumber(data.score[index], 3) + percent));
  if (data.categories.length > 1) two.append(make("span", "soft", visible(data.categories[data.category[index]])));
  if (selects) two.append(data.selected[index] ? make("span", "state", "selected") : make("span", "state unselected", "not selected"));
  foot.append(one, two);
  if (hasChips(data)) {
    const chips = make("div", "chips");
    chips.append(...chipWords(data, index).map((word) => make("span", "chip", word)));
    chips.title = chipWords(data, index).join(", ");
    foot.append(chips);
  }
  for (const part of [square, foot]) part.setAttribute("aria-hidden", "true");
  tile.append(make("span", "unseen"), square, foot, acts);
  tile.title = visible(data.path[index]);
  return tile;
}

function hasChips(data) {
  return Boolean(data.issues || data.duplicates || data.defects);
}

// Updates a tile to its decision.
function markTile(tile, data, decisions, index, selects) {
  const letter = decisions.letters[index], other = decisions.others[index];
  tile.classList.toggle("drop", letter === DROP);
  tile.classList.toggle("keep", letter === KEEP);
  tile.classList.toggle("conflict", other !== UNDECIDED);
  tile.classList.toggle("unselected", selects && !data.selected[index]);
  for (const button of tile.querySelectorAll(".acts button")) {
    button.setAttribute("aria-pressed", button.dataset.letter === letter);
  }
  const signs = { [DROP]: "\u2715", [KEEP]: "\u2713" };
  tile.querySelector(".mark").textContent = other !== UNDECIDED
    ? `${signs[letter]} mine \u00b7 ${signs[other]} theirs`
    : letter === UNDECIDED ? "" : `${signs[letter]} ${WORD[letter]}`;
  tile.querySelector(".unseen").textContent = describe(data, decisions, index, selects);
}

function describe(data, decisions, index, selects) {
  const other = decisions.others[index];
  const parts = [
    `rank ${index + 1}`,
    `score ${formatNumber(data.score[index])}`,
    data.categories[data.category[index]],
    visible(data.path[index]),
    { [DROP]: "dropped", [KEEP]: "kept", [UNDECIDED]: "undecided" }[decisions.letters[index]],
  ];
  if (other !== UNDECIDED) parts.push(`conflict: the other reviewer says ${WORD[other]}`);
  if (selects) parts.push(data.selected[index] ? "selected" : "not selected");
  if (!data.bytes[index]) parts.push("image cannot be read");
  return [...parts, ...chipWords(data, index)].join(", ");
}
