(() => {
  const viewers = document.querySelectorAll(".viewer");
  if (!viewers.length || !("DecompressionStream" in window)) return;

  const LETTERS = { axial: "RLAP", coronal: "RLSI", sagittal: "APSI" };
  const AXES = { axial: ["S", "I", 2], coronal: ["A", "P", 1], sagittal: ["R", "L", 0] };
  const clamp = (value, low, high) => Math.min(high, Math.max(low, value));
  const signed = (value, digits = 0) => {
    const text = Math.abs(value).toFixed(digits);
    return (Number(text) === 0 ? "" : value < 0 ? "−" : "+") + text;
  };
  const plain = (value, digits = 0) => signed(value, digits).replace("+", "");

  const inflate = async (text) => {
    const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  };

  // The inverse of packed_slices.py: low bytes, then high bytes, of folded residuals of the median edge detector.
  const unpack = (bytes, rows, columns, low, step) => {
    const count = rows * columns;
    const steps = new Int32Array(count);
    const values = new Int16Array(count);
    for (let place = 0, row = 0; row < rows; row += 1) {
      for (let column = 0; column < columns; column += 1, place += 1) {
        const left = column ? steps[place - 1] : 0;
        const upper = row ? steps[place - columns] : 0;
        const corner = row && column ? steps[place - columns - 1] : 0;
        const foreseen = Math.max(Math.min(left, upper), Math.min(Math.max(left, upper), left + upper - corner));
        const folded = bytes[place] | (bytes[count + place] << 8);
        steps[place] = (foreseen + ((folded >> 1) ^ -(folded & 1))) & 0xffff;
        values[place] = Math.min(32767, low + step * steps[place]);
      }
    }
    return values;
  };

  const divergingTable = (stops) => {
    const table = new Uint8ClampedArray(3 * 511);
    for (let place = 0; place < 511; place += 1) {
      const share = (place / 510) * (stops.length - 1);
      const first = Math.min(stops.length - 2, Math.floor(share));
      for (let channel = 0; channel < 3; channel += 1) {
        const [from, to] = [stops[first][channel], stops[first + 1][channel]];
        table[3 * place + channel] = Math.round(from + (to - from) * (share - first));
      }
    }
    return table;
  };

  const open = (root) => {
    const facts = JSON.parse(root.dataset.case);
    const [slices, rows, columns] = facts.shape;
    const find = (name) => root.querySelector(name);
    const slider = find(".viewer-slice");
    const planeChoice = find(".viewer-plane");
    const buttons = [...root.querySelectorAll(".viewer-windows button")];
    const canvases = [...root.querySelectorAll("canvas")];
    const readout = find(".readout");
    const colors = divergingTable(facts.stops);
    const sources = {};
    const unpacked = {};
    for (const holder of root.querySelectorAll(".voxels")) {
      sources[holder.dataset.volume] = holder.children;
      unpacked[holder.dataset.volume] = new Array(slices);
    }
    const state = { plane: "axial", window: facts.window, at: [slices >> 1, rows >> 1, columns >> 1], turn: 0 };

    const sliceOf = (key, place) => {
      const [low, step] = facts.volumes[key];
      unpacked[key][place] ??= inflate(sources[key][place].value).then((bytes) => unpack(bytes, rows, columns, low, step));
      return unpacked[key][place];
    };

    // Width, height, number of positions, and the voxel (slice, row, column) at (x, y) of the position shown.
    const layout = () => {
      const [slice, row, column] = state.at;
      if (state.plane === "axial") return [columns, rows, slices, (x, y) => [slice, y, x], [column, row], 0];
      if (state.plane === "coronal") return [columns, slices, rows, (x, y) => [slices - 1 - y, row, x], [column, slices - 1 - slice], 1];
      return [rows, slices, columns, (x, y) => [slices - 1 - y, x, column], [row, slices - 1 - slice], 2];
    };

    const valuesOf = async (key, width, height, voxel) => {
      if (state.plane === "axial") return sliceOf(key, state.at[0]);
      const all = await Promise.all(Array.from({ length: slices }, (_, place) => sliceOf(key, place)));
      const values = new Int16Array(width * height);
      for (let y = 0, place = 0; y < height; y += 1) {
        for (let x = 0; x < width; x += 1, place += 1) {
          const [slice, row, column] = voxel(x, y);
          values[place] = all[slice][row * columns + column];
        }
      }
      return values;
    };

    const paint = (canvas, values, width, height, cross) => {
      const image = new ImageData(width, height);
      const key = canvas.dataset.panel;
      const scale = facts.maps[key];
      const own = key === "mr" ? [2 * facts.mr_per_unit, 0] : scale && [scale.white, scale.white / 2];
      const [span, level] = own ?? facts.windows[state.window];
      const low = level - span / 2;
      for (let place = 0; place < values.length; place += 1) {
        if (key === "error") {
          const color = 3 * Math.round(clamp((values[place] / facts.error_limit + 1) * 255, 0, 510));
          for (let channel = 0; channel < 3; channel += 1) image.data[4 * place + channel] = colors[color + channel];
        } else {
          const grey = clamp(Math.round(((values[place] - low) / span) * 255), 0, 255);
          image.data.fill(grey, 4 * place, 4 * place + 3);
        }
        image.data[4 * place + 3] = 255;
      }
      canvas.width = width;
      canvas.height = height;
      const [slice, row, column] = facts.spacing ?? [1, 1, 1];
      const [across, down] = { axial: [column, row], coronal: [column, slice], sagittal: [row, slice] }[state.plane];
      canvas.style.aspectRatio = `${width * across} / ${height * down}`;
      const context = canvas.getContext("2d");
      context.putImageData(image, 0, 0);
      context.fillStyle = "rgba(255, 190, 0, 0.9)";
      for (const [x, y] of [[-3, 0], [-2, 0], [2, 0], [3, 0], [0, -3], [0, -2], [0, 2], [0, 3]]) {
        context.fillRect(cross[0] + x, cross[1] + y, 1, 1);
      }
    };

    const position = (voxel) => {
      if (!facts.affine) return null;
      const [slice, row, column] = voxel;
      return facts.affine.map((line) => line[0] * column + line[1] * row + line[2] * slice + line[3]);
    };
    const along = (axis, mm) => `${mm < 0 ? axis[1] : axis[0]} ${Math.abs(mm).toFixed(1)}`;

    const placeText = (count, axis) => {
      const number = `${state.at[axis] + 1} of ${count}`;
      const mm = position(state.at);
      if (mm && facts.oriented) return `${number}, ${along(AXES[state.plane], mm[AXES[state.plane][2]])} mm`;
      return facts.spacing ? `${number}, ${(state.at[axis] * facts.spacing[axis]).toFixed(1)} mm from the first` : number;
    };

    const read = async () => {
      const [slice, row, column] = state.at;
      const found = {};
      for (const key of Object.keys(sources)) found[key] = (await sliceOf(key, slice))[row * columns + column];
      const unit = facts.unit === "HU" ? " HU" : "";
      const mm = position(state.at);
      const words = [mm && facts.oriented
        ? `${along("RL", mm[0])}, ${along("AP", mm[1])}, ${along("SI", mm[2])} mm`
        : `column ${column + 1}, row ${row + 1}`];
      if ("mr" in found) words.push(`MR ${plain(found.mr / facts.mr_per_unit, 2)}`);
      words.push(`pseudo-CT ${plain(found.pseudo_ct)}${unit}`);
      if ("ct" in found) words.push(`CT ${plain(found.ct)}${unit}`, `error ${signed(found.pseudo_ct - found.ct)}${unit}`);
      for (const [key, scale] of Object.entries(facts.maps)) {
        const value = plain(found[key] / scale.per_unit, scale.digits);
        words.push(`${key.replace("_", " ")} ${value}${scale.unit && ` ${scale.unit}`}`);
      }
      return words.join(" · ");
    };

    const show = async () => {
      const turn = (state.turn += 1);
      const [width, height, count, voxel, cross, axis] = layout();
      slider.max = count - 1;
      slider.value = state.at[axis];
      const text = placeText(count, axis);
      const found = {};
      for (const key of Object.keys(sources)) found[key] = await valuesOf(key, width, height, voxel);
      if (found.ct) found.error = found.pseudo_ct.map((value, place) => value - found.ct[place]);
      const words = await read();
      if (turn !== state.turn) return;
      slider.setAttribute("aria-valuetext", `slice ${text}`);
      find(".viewer-place").textContent = text;
      for (const canvas of canvases) {
        paint(canvas, found[canvas.dataset.panel], width, height, cross);
        canvas.setAttribute("aria-label", `${canvas.dataset.title}, ${state.plane} slice ${text}`);
        canvas.parentElement.querySelectorAll(".edge").forEach((edge, side) => (edge.textContent = LETTERS[state.plane][side]));
      }
      buttons.forEach((button, number) => button.setAttribute("aria-pressed", String(number === state.window)));
      readout.textContent = words;
      root.dataset.shown = `${state.plane} ${state.at.join(" ")} ${state.window}`;
    };

    const scrollTo = (place) => {
      const [, , count, , , axis] = layout();
      const wanted = clamp(place, 0, count - 1);
      if (wanted === state.at[axis]) return false;
      state.at[axis] = wanted;
      show();
      return true;
    };
    const shown = () => state.at[layout()[5]];
    const moveCross = (x, y) => {
      const [width, height, , voxel] = layout();
      state.at = voxel(clamp(x, 0, width - 1), clamp(y, 0, height - 1));
      show();
    };

    slider.addEventListener("input", () => scrollTo(Number(slider.value)));
    planeChoice.addEventListener("change", () => {
      state.plane = planeChoice.value;
      show();
    });
    buttons.forEach((button, number) => button.addEventListener("click", () => {
      state.window = number;
      show();
    }));
    root.addEventListener("keydown", (event) => {
      if (event.target === planeChoice || event.ctrlKey || event.metaKey || event.altKey) return;
      const arrows = { ArrowUp: [0, -1, 1], ArrowDown: [0, 1, -1], ArrowLeft: [-1, 0, -1], ArrowRight: [1, 0, 1] };
      const jumps = { PageUp: shown() + 10, PageDown: shown() - 10, Home: 0, End: layout()[2] - 1 };
      const number = Number(event.key) - 1;
      if (event.key in arrows && event.shiftKey) {
        const [x, y] = layout()[4];
        readout.setAttribute("aria-live", "polite");
        moveCross(x + arrows[event.key][0], y + arrows[event.key][1]);
      } else if (event.key in arrows) scrollTo(shown() + arrows[event.key][2]);
      else if (event.key in jumps) scrollTo(jumps[event.key]);
      else if (number in buttons) buttons[number].click();
      else return;
      event.preventDefault();
    });
    let turned = 0;
    find(".viewer-panels").addEventListener("wheel", (event) => {
      if (event.ctrlKey) return;
      turned += event.deltaMode ? 40 * event.deltaY : event.deltaY;
      const notches = Math.trunc(turned / 40);
      turned -= 40 * notches;
      const end = event.deltaY > 0 ? 0 : layout()[2] - 1;
      if (shown() === end) return;
      event.preventDefault();
      if (notches) scrollTo(shown() - Math.sign(notches));
    }, { passive: false });
    for (const canvas of canvases) {
      canvas.addEventListener("pointermove", (event) => {
        const box = canvas.getBoundingClientRect();
        const [x, y] = [(event.clientX - box.left) / box.width, (event.clientY - box.top) / box.height];
        if (x < 0 || y < 0 || x >= 1 || y >= 1) return;
        readout.setAttribute("aria-live", "off");
        moveCross(Math.floor(x * canvas.width), Math.floor(y * canvas.height));
      });
      canvas.addEventListener("click", () => slider.focus({ preventScroll: true }));
    }
    show();
  };

  const watcher = new IntersectionObserver((entries) => {
    for (const entry of entries.filter((found) => found.isIntersecting)) {
      watcher.unobserve(entry.target);
      open(entry.target);
    }
  }, { rootMargin: "400px" });
  for (const root of viewers) {
    root.hidden = false;
    watcher.observe(root);
  }
  for (const element of document.querySelectorAll(".viewer-help")) element.hidden = false;
  for (const stills of document.querySelectorAll(".viewer ~ .stills")) stills.open = false;
})();
