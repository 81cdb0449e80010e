/* A surface to turn: a metric over the plane of two directions, for one network after the other. The numbers stand in the page. */
"use strict";

(function () {
  const { shown } = Moving, STOPS = [[0, 34, 78], [87, 93, 109], [165, 156, 116], [254, 232, 56]]; // as cividis in the figures

  function colour(share) {
    const at = Moving.clamp(share, [0, 0.9999]) * 3, k = Math.floor(at);
    const mix = (j) => Math.round(STOPS[k][j] + (at - k) * (STOPS[k + 1][j] - STOPS[k][j]));
    return `rgb(${mix(0)},${mix(1)},${mix(2)})`;
  }

  const range = (lists) => [Math.min(...lists.map((each) => Math.min(...each))), Math.max(...lists.map((each) => Math.max(...each)))];

  function select(stage, label, options) {
    const frame = document.createElement("label"), input = document.createElement("select");
    frame.textContent = label;
    for (const word of options) input.add(new Option(word, word));
    input.addEventListener("input", () => stage.draw());
    frame.append(input);
    stage.controls.append(frame);
    return input;
  }

  Moving.thing("surface", "A surface to turn", (stage) => {
    const data = JSON.parse(document.getElementById("moving-surface-data").textContent), n = data.side, middle = (n - 1) / 2;
    const name = select(stage, "network", data.names), metric = select(stage, "metric", data.metrics);
    const degrees = (v) => `${shown(v, 0)}°`;
    const turn = Moving.slider(stage, { name: "turn", label: "turn", range: [-180, 180], step: 1, value: 35, show: degrees });
    const tilt = Moving.slider(stage, { name: "tilt", label: "tilt", range: [5, 60], step: 1, value: 30, show: degrees });
    const frame = document.createElement("label"), own = document.createElement("input");
    own.type = "checkbox";
    own.addEventListener("input", () => stage.draw());
    frame.append(own, " a scale of its own");
    frame.className = "moving-tick";
    stage.controls.append(frame);

    const svg = d3.select(stage.part("div", "moving-chart")).append("svg").attr("class", "moving-surface").attr("tabindex", 0).attr("role", "slider");
    svg.attr("aria-label", "Surface of the chosen metric over the plane of two directions; the arrow keys turn and tilt it");
    svg.attr("aria-valuemin", -180).attr("aria-valuemax", 180);
    const base = svg.append("path").attr("class", "moving-rim"), faces = svg.append("g").attr("class", "moving-faces");
    const tiles = Array.from({ length: (n - 1) ** 2 }, () => faces.append("path"));
    const names = { a: svg.append("text").text("a"), b: svg.append("text").text("b") };
    const scale = svg.append("g"), bar = Array.from({ length: 24 }, (_, k) => scale.append("rect").attr("fill", colour(k / 23)));
    const ends = { low: scale.append("text"), high: scale.append("text") };

    const move = (across, up) => {
      turn.set(((turn.value + across + 540) % 360) - 180);
      tilt.set(Moving.clamp(tilt.value + up, [5, 60]));
      stage.draw();
    };
    svg.on("keydown", (event) => {
      const way = { ArrowLeft: [-5, 0], ArrowRight: [5, 0], ArrowUp: [0, 3], ArrowDown: [0, -3] }[event.key];
      if (!way) return;
      event.preventDefault();
      move(...way);
    });
    /* A finger turns it sideways; up and down it scrolls the page, as everywhere. */
    let held = null;
    svg.on("pointerdown", (event) => {
      held = [event.clientX, event.clientY];
      svg.node().setPointerCapture(event.pointerId);
    });
    svg.on("pointerup pointercancel", () => (held = null));
    svg.on("pointermove", (event) => {
      if (!held) return;
      const [x, y] = held;
      held = [event.clientX, event.clientY];
      move((x - event.clientX) / 2, (event.clientY - y) / 3);
    });

    return () => {
      const all = data.values[metric.value], z = all[name.value];
      const [low, high] = range(own.checked ? [z] : Object.values(all)), [least, most] = range([z]);
      const wide = Math.min(stage.width, 640), tall = wide * 0.8 + 34;
      svg.attr("viewBox", `0 0 ${wide} ${tall}`).attr("width", wide).attr("height", tall);
      const angle = (turn.value * Math.PI) / 180, lean = (tilt.value * Math.PI) / 180, c = Math.cos(angle), s = Math.sin(angle);
      const share = (k) => (z[k] - low) / (high - low || 1);
      const spot = (i, j, up) => {
        const a = (2 * i) / (n - 1) - 1, b = (2 * j) / (n - 1) - 1, back = s * a + c * b;
        return [wide / 2 + (c * a - s * b) * wide * 0.28, wide * 0.8 * (0.52 + (0.16 - up * 0.45) * Math.cos(lean)) + back * wide * 0.27 * Math.sin(lean), back];
      };
      const path = (points) => "M" + points.map(([p, q]) => `${p.toFixed(1)},${q.toFixed(1)}`).join("L") + "Z";
      base.attr("d", path([[0, 0], [n - 1, 0], [n - 1, n - 1], [0, n - 1]].map(([i, j]) => spot(i, j, 0))));
      const away = (front) => (front > 0 ? n + 0.5 : -1.5);
      for (const [axis, [p, q]] of [["a", spot(middle, away(c), 0)], ["b", spot(away(s), middle, 0)]]) names[axis].attr("x", p - 4).attr("y", q + 5);
      const seen = [];
      for (let i = 0; i + 1 < n; i++) {
        for (let j = 0; j + 1 < n; j++) {
          const corners = [[i, j], [i + 1, j], [i + 1, j + 1], [i, j + 1]], shares = corners.map(([p, q]) => share(p * n + q));
          const points = corners.map(([p, q], k) => spot(p, q, shares[k]));
          seen.push({ depth: points[0][2] + points[2][2], points, mean: (shares[0] + shares[1] + shares[2] + shares[3]) / 4 });
        }
      }
      seen.sort((p, q) => p.depth - q.depth);
      seen.forEach(({ points, mean }, k) => {
        tiles[k].node().setAttribute("d", path(points));
        tiles[k].node().setAttribute("fill", colour(mean));
      });
      bar.forEach((each, k) => each.attr("x", wide / 2 - 96 + 8 * k).attr("y", tall - 18).attr("width", 8.5).attr("height", 12));
      ends.low.attr("x", wide / 2 - 102).attr("y", tall - 7).attr("text-anchor", "end").text(shown(low, 2));
      ends.high.attr("x", wide / 2 + 102).attr("y", tall - 7).text(shown(high, 2)).attr("text-anchor", "start");
      svg.attr("aria-valuenow", Math.round(turn.value)).attr("aria-valuetext", `turned by ${degrees(turn.value)}, tilted by ${degrees(tilt.value)}`);
      stage.say(`${name.value}, ${metric.value}: ${shown(z[middle * n + middle], 2)} at w, from ${shown(least, 2)} to ${shown(most, 2)} in the square; `
        + `heights and colours from ${shown(low, 2)} to ${shown(high, 2)}.`);
    };
  });
})();
