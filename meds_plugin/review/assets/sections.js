// Where rows of tiles and the headings between them lie, from top to bottom.

const GAP = 10, HEADING = 40;

class Sections {
  // `breaks` are { at, text }: a heading comes before the tile at this place.
  constructor(count, columns, pitch, breaks) {
    this.columns = columns;
    this.pitch = pitch;
    this.all = [];
    const starts = breaks.length && breaks[0].at === 0 ? breaks : [{ at: 0, text: "" }, ...breaks];
    let top = GAP, row = 0, line = 0;
    starts.forEach(({ at, text }, number) => {
      const to = number + 1 < starts.length ? starts[number + 1].at : count;
      const rows = Math.ceil((to - at) / columns), first = top + (text ? HEADING : 0);
      line += text ? 1 : 0;
      this.all.push({ from: at, to, text, row, rows, top, first, line, bottom: first + rows * pitch });
      top = first + rows * pitch;
      row += rows;
      line += rows;
    });
    this.rows = row;
    this.lines = line; // rows and headings
    this.height = top;
  }

  // Returns the last section for which this holds; it holds for all before it.
  last(holds) {
    let low = 0, high = this.all.length - 1;
    while (low < high) {
      const middle = Math.ceil((low + high) / 2);
      if (holds(this.all[middle])) low = middle;
      else high = middle - 1;
    }
    return this.all[low];
  }

  sectionOf(row) {
    return this.last((section) => section.row <= row && section.row < this.rows);
  }

  // Returns the places [from, to) in a row.
  places(row) {
    const section = this.sectionOf(row), from = section.from + (row - section.row) * this.columns;
    return [from, Math.min(section.to, from + this.columns)];
  }

  rowOf(place) {
    const section = this.last(({ from }) => from <= place);
    return section.row + Math.floor((place - section.from) / this.columns);
  }

  topOf(row) {
    const section = this.sectionOf(row);
    return section.first + (row - section.row) * this.pitch;
  }

  // Returns the place of a row among rows and headings.
  lineOf(row) {
    const section = this.sectionOf(row);
    return section.line + row - section.row;
  }

  // Returns rows and the numbers of headed sections between two heights.
  between(from, to) {
    const rows = [], headings = [];
    let number = this.all.indexOf(this.last(({ top }) => top <= from));
    for (; number < this.all.length && this.all[number].top <= to; number += 1) {
      const { text, row, rows: count, first } = this.all[number];
      if (text) headings.push(number);
      const start = Math.max(0, Math.floor((from - first) / this.pitch));
      const end = Math.min(count, Math.floor((to - first) / this.pitch) + 1);
      for (let each = start; each < end; each += 1) rows.push(row + each);
    }
    return { rows, headings };
  }
}
