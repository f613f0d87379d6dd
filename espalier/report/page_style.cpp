// One column of 920 px, system fonts, hairlines instead of boxes; colours are custom properties
// (svg_style.cpp).
#include "espalier/report/page_style_internal.h"

namespace espalier::report_internal {

std::string page_style() {
  return R"(
*{box-sizing:border-box}
html{color-scheme:light dark;-webkit-text-size-adjust:100%}
body{margin:0 auto;max-width:976px;padding:40px 28px 64px;background:var(--bg);color:var(--ink);
font:16px/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
header{border-bottom:1px solid var(--rule);padding-bottom:20px;margin-bottom:8px}
.brand{display:flex;align-items:center;gap:8px;color:var(--s2);font-size:14px;font-weight:600;letter-spacing:.06em}
.brand svg{width:22px;height:22px}
h1{font-size:32px;line-height:1.2;font-weight:680;letter-spacing:-.02em;margin:14px 0 6px;overflow-wrap:anywhere;text-wrap:balance}
.subtitle{margin:0;color:var(--muted);font-size:17px;overflow-wrap:anywhere}
nav{display:flex;flex-wrap:wrap;gap:4px 20px;padding:10px 0;border-bottom:1px solid var(--rule);font-size:14px}
a{color:var(--link);text-decoration:none}
a:hover{text-decoration:underline}
h2{font-size:21px;line-height:1.3;font-weight:650;letter-spacing:-.01em;margin:44px 0 12px;overflow-wrap:anywhere}
p{max-width:72ch;margin:10px 0;overflow-wrap:anywhere;text-wrap:pretty}
.figures{display:grid;grid-template-columns:repeat(auto-fit,minmax(170px,1fr));gap:1px;margin:18px 0;padding:0;
background:var(--rule);border:1px solid var(--rule);border-radius:10px;overflow:hidden}
.figures div{background:var(--card);padding:14px 18px}
.figures dt{color:var(--muted);font-size:13px;line-height:1.35}
.figures dd{margin:4px 0 0;font-size:27px;line-height:1.2;font-weight:650;letter-spacing:-.02em;
font-variant-numeric:tabular-nums;overflow-wrap:anywhere}
figure{margin:20px 0;padding:18px 20px 14px;background:var(--card);border:1px solid var(--rule);border-radius:10px}
figcaption{font-weight:600;margin-bottom:12px;overflow-wrap:anywhere}
.drawing{overflow-x:auto}
.drawing svg{display:block;max-width:100%;height:auto}
.chart .drawing svg{width:100%;min-width:520px}
details{margin-top:12px;border-top:1px solid var(--rule);padding-top:8px;font-size:14px}
summary{color:var(--muted);cursor:pointer;width:max-content}
summary:hover{color:var(--ink)}
details .scroll{max-height:420px;overflow:auto}
pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere;
font:13.5px/1.55 ui-monospace,SFMono-Regular,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
.scroll{overflow-x:auto;margin:16px 0}
table{border-collapse:collapse;min-width:50%;font-size:14.5px;line-height:1.4}
caption{text-align:left;color:var(--muted);font-size:14px;padding:0 0 8px}
th,td{padding:7px 14px;border-bottom:1px solid var(--rule);text-align:left;vertical-align:top}
th{font-weight:600;color:var(--muted);font-size:13px;border-bottom:1.5px solid var(--axis);vertical-align:bottom}
th:first-child,td:first-child{padding-left:4px}
tbody tr:hover{background:color-mix(in srgb,var(--rule) 35%,transparent)}
.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
footer{margin-top:56px;padding-top:4px;border-top:1px solid var(--rule);color:var(--muted);font-size:14px}
footer h2{font-size:16px;margin:18px 0 10px;color:var(--ink)}
footer dl{display:grid;grid-template-columns:minmax(120px,max-content) 1fr;gap:4px 20px;margin:0}
footer dt{color:var(--muted)}
footer dd{margin:0;color:var(--ink);white-space:pre-wrap;overflow-wrap:anywhere;
font:13px/1.6 ui-monospace,SFMono-Regular,"SF Mono",Menlo,Consolas,"Liberation Mono",monospace}
@media (max-width:560px){body{padding:24px 14px 40px}footer dl{grid-template-columns:1fr}footer dd{margin-bottom:6px}}
@page{size:A4;margin:16mm 14mm}
@media print{
html{color-scheme:light;-webkit-print-color-adjust:exact;print-color-adjust:exact}
body{max-width:none;padding:0;background:#fff;font-size:10.5pt}
h1{font-size:20pt}h2{font-size:13.5pt;margin-top:20pt;break-after:avoid}
nav,details{display:none}
figure,.figures,tr,.short,footer{break-inside:avoid}
caption{break-after:avoid}
figure{padding:10pt 12pt;border-radius:4pt}
.figures dd{font-size:17pt}
.chart .drawing svg{min-width:0}
.map .drawing svg{max-width:120mm}
a{color:inherit}
}
)";
}

std::string brand_mark() {
  return R"(<svg viewBox="0 0 24 24" aria-hidden="true" fill="none" stroke="currentColor" stroke-width="1.8" )"
         R"(stroke-linecap="round"><path d="M12 22V4M12 18C8 18 5 17 3 15M12 18c4 0 7-1 9-3M12 12.5C8.5 12.5 6 11.5)"
         R"( 4.5 9.5M12 12.5c3.5 0 6-1 7.5-3M12 7C10 7 8.5 6 7.5 4M12 7c2 0 3.5-1 4.5-3"/></svg>)";
}

}  // namespace espalier::report_internal
