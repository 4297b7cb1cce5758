// COCO RLE: compressed counts to run lengths, runs to outlines. A mask goes down the columns, zeros first.

const MOST_CELLS = 1_500_000;

/** The run lengths of compressed counts; throws where they do not fill an image of `pixels`. */
export function runsOf(counts, pixels) {
  const runs = [];
  let total = 0;
  for (let at = 0; at < counts.length; ) {
    let value = 0;
    for (let shift = 0, more = true; more; shift += 5) {
      const code = counts.charCodeAt(at++) - 48;
      if (!(code >= 0 && code < 64) || shift > 25) throw new RangeError("a mask's counts are damaged");
      value |= (code & 31) << shift;
      more = (code & 32) !== 0;
      if (!more && code & 16) value |= -1 << (shift + 5);
    }
    if (runs.length > 2) value += runs[runs.length - 2];
    if (value < 0) throw new RangeError("a mask's counts are damaged");
    runs.push(value);
    total += value;
  }
  if (total !== pixels) throw new RangeError(`a mask covers ${total} pixels, its image has ${pixels}`);
  return runs;
}

/**
 * Outlines of masks of one image as paths in its pixels, along the edges of pixels: filled by the even-odd rule they are
 * the masks again. Large images are looked at through a coarser grid of at most `mostCells`, from the pixel under each
 * cell's centre.
 */
export class Tracer {
  constructor(width, height, mostCells = MOST_CELLS) {
    const shrink = Math.min(1, Math.sqrt(mostCells / (width * height)));
    this.width = width;
    this.height = height;
    this.columns = Math.max(1, Math.round(width * shrink));
    this.rows = Math.max(1, Math.round(height * shrink));
    this.exact = this.columns === width && this.rows === height;
    this.stride = this.columns + 2; // a frame of empty cells all around
    this.cells = new Uint8Array(this.stride * (this.rows + 2));
    this.seen = new Uint8Array(this.cells.length);
  }

  /** The outline of one mask. */
  path(counts) {
    const box = this.#fill(runsOf(counts, this.width * this.height));
    const path = new Path2D();
    for (let y = box.top; y <= box.bottom; y++) {
      for (let x = box.left; x <= box.right; x++) {
        const at = y * this.stride + x;
        if (this.cells[at] && !this.cells[at - this.stride] && !this.seen[at]) this.#follow(path, x, y);
      }
    }
    for (let y = box.top; y <= box.bottom; y++) {
      const row = y * this.stride;
      this.cells.fill(0, row + box.left, row + box.right + 1);
      this.seen.fill(0, row + box.left, row + box.right + 1);
    }
    return path;
  }

  #fill(runs) {
    const box = { left: this.columns + 1, right: 0, top: this.rows + 1, bottom: 0 };
    const first = runs[0] ?? 0;
    const last = this.width * this.height - (runs.length % 2 ? runs[runs.length - 1] : 0); // behind the mask's last pixel
    let run = 0;
    let end = first; // where the current run ends, in pixels down the columns
    for (let x = 1; x <= this.columns; x++) {
      const column = Math.floor(((2 * x - 1) * this.width) / (2 * this.columns)) * this.height;
      if (column + this.height <= first) continue;
      if (column >= last) break;
      for (let y = 1; y <= this.rows; y++) {
        const pixel = column + Math.floor(((2 * y - 1) * this.height) / (2 * this.rows));
        while (pixel >= end) end += runs[++run];
        if (run % 2 === 0) continue;
        this.cells[y * this.stride + x] = 1;
        if (x < box.left) box.left = x;
        box.right = x;
        if (y < box.top) box.top = y;
        if (y > box.bottom) box.bottom = y;
      }
    }
    return box;
  }

  /** One loop, from the upper left corner of a cell to the right, the mask on the right hand; a corner joins no cells. */
  #follow(path, startX, startY) {
    const { stride, cells, seen } = this;
    const acrossX = this.width / this.columns;
    const acrossY = this.height / this.rows;
    let [x, y, heading] = [startX, startY, 0]; // the corner at the upper left of cell x, y; 0 right, 1 down, 2 left, 3 up
    path.moveTo((x - 1) * acrossX, (y - 1) * acrossY);
    do {
      if (heading === 0) seen[y * stride + x] = 1;
      if (heading === 0) x++;
      else if (heading === 1) y++;
      else if (heading === 2) x--;
      else y--;
      const corner = y * stride + x;
      const quarters = [corner, corner - 1, corner - 1 - stride, corner - stride]; // right-ahead for 0, 1, 2, 3
      const right = cells[quarters[heading]];
      const left = cells[quarters[(heading + 3) % 4]];
      const turn = !right ? 1 : left ? 3 : 0;
      if (turn) path.lineTo((x - 1) * acrossX, (y - 1) * acrossY);
      heading = (heading + turn) % 4;
    } while (x !== startX || y !== startY || heading !== 0);
    path.closePath();
  }
}
