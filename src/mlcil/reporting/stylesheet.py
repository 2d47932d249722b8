"""The look of a report: one style sheet for light and dark, wide and narrow screens, and paper."""

from __future__ import annotations

#: anchors of the heat map's colours from 0 to 100 percent, dark to light (perceptually even, fit for colour-blind eyes)
RAMP = ((59, 15, 92), (63, 73, 137), (42, 119, 142), (36, 163, 132), (122, 206, 88), (248, 230, 60))

CSS = """
:root{color-scheme:light dark;--bg:#fff;--fg:#1b1f24;--soft:#5b6570;--line:#d5dae0;--panel:#f5f7f9;--link:#0b5cad;
--good:#0a6b43;--bad:#b3261e;--warn-bg:#fff4d6;--warn:#7a5200;--info-bg:#e8f1fb;--info:#1f4f80;
--s0:#0069a8;--s1:#c44e00;--s2:#00805d;--s3:#a3478a;--s4:#8a6500;--s5:#59616b;--s6:#007c91;--s7:#b3123a;
--k0:#0069a8;--k1:#c44e00;--k2:#00805d;--k3:#a3478a;--k4:#9aa3ad}
@media(prefers-color-scheme:dark){:root{--bg:#14171b;--fg:#e6e9ed;--soft:#a0a9b3;--line:#363d46;--panel:#1d2228;
--link:#7fb8f0;--good:#5fd3a0;--bad:#ff8a80;--warn-bg:#3a2e0c;--warn:#ffd873;--info-bg:#152b42;--info:#a9d0f7;
--s0:#56b4e9;--s1:#ff8c4a;--s2:#2fd3a5;--s3:#e39bcb;--s4:#f0c040;--s5:#b8bfc7;--s6:#4fd0e0;--s7:#ff7a93;
--k0:#56b4e9;--k1:#ff8c4a;--k2:#2fd3a5;--k3:#e39bcb;--k4:#78818b}}
*{box-sizing:border-box}
body{margin:0 auto;max-width:1320px;padding:24px 20px 64px;background:var(--bg);color:var(--fg);
font:16px/1.5 system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans",sans-serif;overflow-wrap:break-word}
h1{font-size:1.75rem;line-height:1.2;margin:0 0 4px}
h2{font-size:1.3rem;margin:44px 0 8px;padding-top:14px;border-top:1px solid var(--line)}
h3{font-size:1.05rem;margin:26px 0 8px}h4{font-size:.95rem;margin:18px 0 4px}
h5{font-size:.85rem;margin:10px 0 6px;color:var(--soft);font-weight:600}
p,dl{max-width:75ch;margin:8px 0}a{color:var(--link)}
.muted,small{color:var(--soft)}small{font-size:.75rem}
nav{display:flex;flex-wrap:wrap;gap:4px 16px;margin:14px 0 0;font-size:.95rem}
.note{border-left:4px solid;padding:8px 12px;border-radius:4px;max-width:none}
.warning{background:var(--warn-bg);color:var(--warn)}.info{background:var(--info-bg);color:var(--info)}
.scroll{overflow-x:auto;max-width:100%}.table{margin:12px 0;max-width:100%}
.scroll:focus-visible,summary:focus-visible{outline:2px solid var(--link);outline-offset:2px}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums;line-height:1.35}
.table>figcaption{color:var(--soft);padding:0 0 4px;font-size:.85rem}
.table>figcaption .run{color:var(--fg);font-weight:600}
th,td{padding:5px 8px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line);font-weight:400}
thead th{color:var(--soft);vertical-align:bottom;font-weight:600;white-space:normal}
th.t,td.t{text-align:left}.words{white-space:normal;min-width:14em;max-width:44em}tbody th{font-weight:600}
th.g{text-align:center;border-bottom:2px solid var(--line)}th.g:empty{border-bottom-color:transparent}
th.g+th.g{border-left:10px solid var(--bg)}
.scroll tbody th:first-child{position:sticky;left:0;background:var(--bg)}
.run{white-space:nowrap}.legend{display:flex;flex-wrap:wrap;gap:2px 18px;font-size:.85rem;max-width:none}
.swatch{width:28px;height:16px;vertical-align:-3px;margin-right:6px}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,420px),1fr));gap:16px;margin:12px 0}
figure{margin:0}.figures figure{background:var(--panel);border-radius:8px;padding:12px;max-width:660px}
.figures figcaption{font-weight:600;font-size:.9rem;margin-bottom:6px}
.figures svg{display:block;width:100%;height:auto}
svg text{font-size:12.5px;fill:var(--soft);font-family:inherit}
svg .end{text-anchor:end}svg .mid{text-anchor:middle}svg .name{fill:currentColor;font-weight:600;font-size:12.5px}
svg .grid{stroke:var(--line);stroke-width:1}svg .zero{stroke:var(--soft)}
svg polyline{fill:none;stroke:currentColor;stroke-width:2.2;stroke-linejoin:round}
svg circle,svg rect,svg path{fill:currentColor}svg .lead{stroke:currentColor;stroke-width:1;opacity:.6}
.s0{color:var(--s0)}.s1{color:var(--s1)}.s2{color:var(--s2)}.s3{color:var(--s3)}
.s4{color:var(--s4)}.s5{color:var(--s5)}.s6{color:var(--s6)}.s7{color:var(--s7)}
.k0{background:var(--k0)}.k1{background:var(--k1)}.k2{background:var(--k2)}.k3{background:var(--k3)}
.k4{background:var(--k4)}.key{display:inline-block;width:10px;height:10px;border-radius:2px;margin-right:5px}
.wide{min-width:180px;width:28%}.bar{display:flex;height:14px}.bar span{min-width:1px}
.maps{display:flex;flex-wrap:wrap;gap:12px 36px;align-items:flex-start}.maps .table{margin:6px 0}
.heat th,.heat td{padding:2px 7px;min-width:38px;border-bottom:1px solid var(--bg)}
.heat tbody th{max-width:170px;overflow:hidden;text-overflow:ellipsis;font-weight:400}
.heat td{text-align:center;border-right:1px solid var(--bg)}.heat thead th{text-align:center}
.heat thead .t{text-align:left}
.heat .first>*{border-top:3px solid var(--fg)}.heat .moved{text-align:right;color:var(--soft)}
.ramp{display:inline-flex;vertical-align:-2px}.ramp span{width:18px;height:14px}
details{margin:10px 0}summary{cursor:pointer;color:var(--link);padding:4px 0}
summary .run{color:var(--fg);font-weight:600}
dl{display:grid;grid-template-columns:minmax(9em,max-content) 1fr;gap:4px 18px;max-width:none;font-size:.92rem}
dt{font-weight:600}dd{margin:0}
pre{overflow-x:auto;background:var(--panel);padding:12px;border-radius:8px;font-size:.8rem;line-height:1.4}
.facts{width:100%}.facts th{vertical-align:top;color:var(--soft);width:1%}
.facts td{white-space:normal;overflow-wrap:anywhere;min-width:220px}i{font-style:normal;color:var(--soft)}
.kinds{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,320px),1fr));gap:8px 28px}
.tiles{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:10px}
.tile{background:var(--panel);border-radius:8px;padding:8px;font-size:.78rem;line-height:1.4;min-width:0}
.frame{height:140px;display:flex;align-items:center;justify-content:center;margin-bottom:6px}
.frame img{width:100%;height:100%;object-fit:contain;border-radius:4px}.lost{color:var(--soft)}
.tile b{display:block;font-size:.85rem}.tile i{margin-right:4px}.tile small{display:block;overflow:hidden;
text-overflow:ellipsis;white-space:nowrap;margin-top:2px}
.tag{display:inline-block;margin-right:7px}.score{font-weight:400;font-variant-numeric:tabular-nums;opacity:.85}
.right{color:var(--good)}.wrong,.missed{color:var(--bad)}.open{color:var(--soft)}
@media(max-width:600px){.wide{min-width:80px}body{padding:16px 14px 48px;font-size:15px}h1{font-size:1.4rem}
.figures figure{padding:8px 4px}
.scroll tbody th:first-child{max-width:45vw;overflow:hidden;text-overflow:ellipsis}
dl{display:block}dd{margin:0 0 8px}th,td{padding:5px 7px}.heat th,.heat td{padding:2px 4px;min-width:32px}
.heat tbody th{max-width:110px}svg text,svg .name{font-size:14px}}
.made{image-rendering:pixelated;max-width:100%;width:auto;border-radius:4px}
@media print{body{max-width:none}nav{display:none}.figures figure,.tile{break-inside:avoid}}
"""


def style_sheet(levels: int) -> str:
    """The style sheet with the heat map's shades ``h0`` to ``h<levels - 1>``.

    Args:
        levels: number of shades, at least 2.
    """
    shades = []
    for level in range(levels):
        colour = ramp(level / (levels - 1))
        ink = "#111" if contrast(colour, (17, 17, 17)) > contrast(colour, (255, 255, 255)) else "#fff"
        shades.append(f".h{level}{{background:#{bytes(colour).hex()};color:{ink}}}")
    return CSS + "\n".join(shades) + "\n"


def ramp(share: float) -> tuple[int, int, int]:
    """The colour at a share in [0, 1], linear between the anchors: red, green, blue in [0, 255]."""
    place = share * (len(RAMP) - 1)
    start = min(int(place), len(RAMP) - 2)
    a, b = RAMP[start], RAMP[start + 1]
    red, green, blue = (round(u + (v - u) * (place - start)) for u, v in zip(a, b, strict=True))
    return red, green, blue


def contrast(a: tuple[int, int, int], b: tuple[int, int, int]) -> float:
    """Contrast ratio of two colours as WCAG defines it, 1 to 21."""
    light, dark = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: tuple[int, int, int]) -> float:
    linear = [(v / 255 / 12.92) if v / 255 <= 0.04045 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
