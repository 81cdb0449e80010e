/* What the things to move share: a place on the page, charts, sliders, handles, and a sentence that is read aloud. */
"use strict";
window.Moving = window.Moving || {};

(function () {
  let made = 0; // for ids that occur once

  const calm = () => window.matchMedia("(prefers-reduced-motion: reduce)").matches;
  const shown = (number, digits = 3) => (Object.is(Math.round(number * 10 ** digits), -0) ? 0 : number).toFixed(digits).replace("-", "−");
  const clamp = (x, [low, high]) => Math.min(Math.max(x, low), high);

  /* Puts a thing in every place that asks for it. `make` fills the stage and returns a function that draws it anew. */
  function thing(name, label, make) {
    for (const box of document.querySelectorAll(`.moving[data-moving="${name}"]`)) {
      const live = document.createElement("div");
      live.className = "moving-live";
      live.setAttribute("role", "group");
      live.setAttribute("aria-label", label);
      const stage = stageIn(live, box);
      const draw = make(stage);
      placeOf(box)(live);
      box.classList.add("is-live");
      stage.draw = () => {
        stage.width = live.clientWidth;
        if (stage.width) draw();
      };
      new ResizeObserver(() => live.clientWidth !== stage.width && stage.draw()).observe(live);
      stage.draw();
    }
  }

  /* In the box, or in a figure of the page, in the place of its picture. */
  function placeOf(box) {
    const figure = box.dataset.insteadOf && document.getElementById(box.dataset.insteadOf);
    if (!figure) return (live) => box.append(live);
    figure.classList.add("moving-figure");
    const caption = figure.querySelector("figcaption");
    return (live) => figure.insertBefore(live, caption);
  }

  function stageIn(live, box) {
    const part = (tag, name) => {
      const element = document.createElement(tag);
      element.className = name;
      live.append(element);
      return element;
    };
    const stage = { live, box, width: 0, controls: part("div", "moving-controls") };
    const aloud = document.createElement("p");
    aloud.className = "moving-aloud";
    aloud.setAttribute("role", "status");
    let words = null, wait = 0;
    /* The sentence below the drawing. Screen readers get it when the reader pauses, not at each step of a drag. */
    stage.say = (text) => {
      if (!words) {
        words = part("p", "moving-said");
        live.append(aloud);
      }
      words.textContent = text;
      clearTimeout(wait);
      wait = setTimeout(() => (aloud.textContent = text), 700);
    };
    stage.part = part;
    return stage;
  }

  /* A slider with its label and value. `log: true` makes equal ways equal factors; `values` are all that there are. */
  function slider(stage, { name, label, range, values, value, step, show = shown, log = false, changed }) {
    const to = values ? (x) => values.indexOf(x) : log ? Math.log : (x) => x;
    const from = values ? (x) => values[x] : log ? Math.exp : (x) => x;
    if (values) [range, step] = [[values[0], values.at(-1)], 1];
    const frame = document.createElement("label"), input = document.createElement("input"), output = document.createElement("output");
    const words = document.createElement("span");
    words.innerHTML = label;
    Object.assign(input, { type: "range", min: to(range[0]), max: to(range[1]), step: step || "any", value: to(value) });
    input.dataset.slider = name;
    frame.htmlFor = input.id = `moving-slider-${++made}`; // an output can be labelled, too, and comes first
    frame.append(words, output, input);
    stage.controls.append(frame);
    const self = { frame, input, value };
    const tell = () => {
      output.textContent = show(self.value);
      input.setAttribute("aria-valuetext", output.textContent);
    };
    self.set = (next) => {
      self.value = next;
      input.value = to(next);
      tell();
    };
    input.addEventListener("input", () => {
      self.value = from(Number(input.value));
      tell();
      (changed || stage.draw)(self.value);
    });
    if (!step) arrowsFor(input, (to(range[1]) - to(range[0])) / 100);
    tell();
    return self;
  }

  /* Browsers move a slider of any value by their own measure; here a key moves it by a hundredth of its way, or a tenth. */
  function arrowsFor(input, step) {
    const ways = { ArrowRight: 1, ArrowUp: 1, ArrowLeft: -1, ArrowDown: -1, PageUp: 10, PageDown: -10 };
    input.addEventListener("keydown", (event) => {
      if (!(event.key in ways)) return;
      event.preventDefault();
      input.value = Number(input.value) + ways[event.key] * step;
      input.dispatchEvent(new Event("input"));
    });
  }

  /* One of a few: a row of radio buttons. */
  function choice(stage, { label, options, value, changed }) {
    const frame = document.createElement("fieldset"), self = { value }, name = `moving-choice-${++made}`;
    frame.innerHTML = `<legend>${label}</legend>`;
    for (const [key, words] of Object.entries(options)) {
      const each = document.createElement("label");
      each.innerHTML = `<input type="radio" name="${name}" value="${key}"> ${words}`;
      each.firstChild.checked = key === value;
      each.firstChild.addEventListener("change", () => {
        self.value = key;
        if (changed) changed(key);
        stage.draw();
      });
      frame.append(each);
    }
    stage.controls.append(frame);
    return self;
  }

  function button(stage, words, action) {
    const element = document.createElement("button");
    element.type = "button";
    element.textContent = words;
    element.addEventListener("click", action);
    stage.controls.append(element);
    return element;
  }

  /* Numbers in a table: rows of a title and cells, each cell with a name by which a test finds it. */
  function table(stage, head, rows) {
    const frame = stage.part("table", "moving-table"), cells = {};
    frame.innerHTML = `<thead><tr>${head.map((each) => (each ? `<th scope="col">${each}</th>` : "<td></td>")).join("")}</tr></thead>`;
    const body = frame.createTBody();
    for (const [title, ...names] of rows) {
      const row = body.insertRow();
      row.innerHTML = `<th scope="row">${title}</th>`;
      for (const name of names) {
        cells[name] = row.insertCell();
        cells[name].dataset.number = name;
      }
    }
    const fill = (values) => Object.entries(values).forEach(([name, text]) => (cells[name].textContent = text));
    return { fill, cells };
  }

  /* An SVG with axes. `fit` gives it the width of the stage; marks go into `plot`, which is clipped, or `over`, which is not. */
  function chart(stage, { label, height, x, y, xLabel, yLabel, legend = [], ticks = [6, 5], left = 44, square = false, grouped = false }) {
    const frame = stage.part("div", "moving-chart"), clip = `moving-clip-${++made}`;
    const svg = d3.select(frame).append("svg").attr("role", grouped ? "group" : "img").attr("aria-label", label);
    const area = svg.append("clipPath").attr("id", clip).append("rect");
    const key = svg.append("g").attr("class", "moving-legend");
    const plot = svg.append("g").attr("clip-path", `url(#${clip})`);
    const below = svg.append("g").attr("class", "moving-axis"), beside = svg.append("g").attr("class", "moving-axis");
    const under = svg.append("text").attr("class", "moving-title").attr("text-anchor", "middle").text(xLabel);
    const side = svg.append("text").attr("class", "moving-title").text(yLabel);
    const over = svg.append("g");
    const self = { svg, plot, over, x: d3.scaleLinear().domain(x), y: d3.scaleLinear().domain(y), legend };
    self.fit = (wide = stage.width) => {
      const head = drawLegend(key, self.legend, wide - 8), top = head + (yLabel ? 22 : 8);
      const across = wide - left - 12;
      const high = square ? (across * Math.abs(y[1] - y[0])) / Math.abs(x[1] - x[0]) : height;
      self.x.range([left, left + across]);
      self.y.range([top + high, top]);
      svg.attr("viewBox", `0 0 ${wide} ${top + high + 40}`).attr("width", wide).attr("height", top + high + 40);
      area.attr("x", left).attr("y", top).attr("width", across).attr("height", high);
      below.attr("transform", `translate(0,${top + high})`).call(d3.axisBottom(self.x).ticks(wide < 450 ? 5 : 9).tickSizeOuter(0));
      beside.attr("transform", `translate(${left},0)`).call(d3.axisLeft(self.y).ticks(ticks[1]).tickSizeOuter(0));
      under.attr("x", left + across / 2).attr("y", top + high + 35);
      side.attr("x", 4).attr("y", top - 8);
      Object.assign(self, { top, high, left, across });
    };
    self.path = (points) => "M" + points.map(([a, b]) => `${self.x(a).toFixed(1)},${clamp(self.y(b), [-3000, 3000]).toFixed(1)}`).join("L");
    self.line = (name) => self.plot.append("path").attr("class", `moving-line ${name}`);
    return self;
  }

  /* The names of the lines, in rows above the plot; returns their height. */
  function drawLegend(group, entries, wide) {
    group.selectAll("*").remove();
    let x = 4, y = 12;
    for (const { name, text, mark } of entries) {
      const length = 36 + 6.7 * text.length;
      if (x > 4 && x + length > wide) [x, y] = [4, y + 18];
      if (mark) group.append("path").attr("class", name).attr("d", mark).attr("transform", `translate(${x + 12},${y - 4})`);
      else group.append("path").attr("class", `moving-line ${name}`).attr("d", `M${x},${y - 4}h24`);
      group.append("text").attr("x", x + 30).attr("y", y).text(text);
      x += length + 12;
    }
    return entries.length ? y + 6 : 0;
  }

  /* Something to take hold of: by mouse, by finger, and by the arrow keys. `moved` gets the wished point in the units of the chart. */
  function handle(chart, { label, at, step, moved, text, range, flat = false }) {
    const knob = chart.over.append("g").attr("class", "moving-handle").attr("tabindex", 0).attr("role", "slider").attr("aria-label", label);
    knob.attr("aria-valuemin", range[0]).attr("aria-valuemax", range[1]);
    knob.append("circle").attr("r", 22).attr("class", "moving-reach");
    knob.append("circle").attr("r", 8).attr("class", "moving-knob");
    const wish = (a, b) => moved([a, b]);
    knob.call(d3.drag().container(chart.svg.node()).on("start drag", (event) => wish(chart.x.invert(event.x), chart.y.invert(event.y))));
    knob.on("keydown", (event) => {
      const ways = { ArrowRight: [1, 0], ArrowLeft: [-1, 0], ArrowUp: flat ? [1, 0] : [0, 1], ArrowDown: flat ? [-1, 0] : [0, -1] }[event.key];
      if (!ways) return;
      event.preventDefault();
      const much = step * (event.shiftKey ? 10 : 1), [a, b] = at();
      wish(a + ways[0] * much, b + ways[1] * much);
    });
    /* A click beside it brings it there. On a phone a swipe over the drawing still scrolls the page. */
    chart.svg.on("click.handle", (event) => {
      if (event.defaultPrevented || event.target.closest(".moving-handle")) return;
      const [p, q] = d3.pointer(event, chart.svg.node());
      if (p >= chart.left && p <= chart.left + chart.across && q >= chart.top && q <= chart.top + chart.high) {
        wish(chart.x.invert(p), chart.y.invert(q));
      }
    });
    return {
      place: ([a, b], [p, q] = [a, b]) => {
        knob.attr("transform", `translate(${chart.x(p)},${chart.y(q)})`).attr("aria-valuenow", a).attr("aria-valuetext", text());
      },
      node: knob.node(),
    };
  }

  Object.assign(window.Moving, { thing, slider, choice, button, table, chart, handle, shown, clamp, calm });
})();
